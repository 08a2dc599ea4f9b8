// Shows the image behind the point of a map that is pointed at or tapped. The page is complete without it.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("points").textContent);
  const card = document.getElementById("card");
  const tile = card.querySelector(".t");
  const text = card.querySelector("p");
  const hide = ring => { card.hidden = true; ring.remove(); };
  const nearest = (places, x, y, reach) => {
    let best = -1, least = reach * reach;
    places.forEach(([px, py], i) => {
      const d = (px - x) ** 2 + (py - y) ** 2;
      if (d < least) { least = d; best = i; }
    });
    return best;
  };
  for (const figure of document.querySelectorAll("figure[data-points]")) {
    const places = data.maps[figure.dataset.points];
    const svg = figure.querySelector("svg");
    const ring = document.createElementNS(svg.namespaceURI, "circle");
    ring.setAttribute("class", "rg");
    ring.setAttribute("r", 6);
    const show = event => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const i = nearest(places, at.x, at.y, event.pointerType === "mouse" ? 12 : 28);
      if (i < 0) return hide(ring);
      ring.setAttribute("cx", places[i][0]);
      ring.setAttribute("cy", places[i][1]);
      svg.append(ring);
      tile.style.setProperty("--x", data.tile[i] % data.columns);
      tile.style.setProperty("--y", Math.floor(data.tile[i] / data.columns));
      text.textContent = data.name[i] + "\n" + data.note[i];
      card.hidden = false;
      card.dataset.image = data.image[i];
      const { width, height } = card.getBoundingClientRect();
      const right = event.clientX + 18 + width < innerWidth;
      const x = right ? event.clientX + 18 : event.clientX - 18 - width;
      card.style.left = Math.max(6, Math.min(x, innerWidth - width - 6)) + "px";
      card.style.top = Math.max(6, Math.min(event.clientY - height / 2, innerHeight - height - 6)) + "px";
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") hide(ring); });
  }
  addEventListener("scroll", () => { card.hidden = true; }, { passive: true });
})();
