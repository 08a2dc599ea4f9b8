//! The report in a real browser: `cargo test --release --test cli -- --ignored browser`, as `.ci/run` does.

use std::path::Path;
use std::process::Command;

use crate::Folder;
use crate::report::{attributes, reported};

/// Where Chromium itself looks for news, whatever page is open; a page's own requests are refused by its policy as well.
const OF_THE_BROWSER: [&str; 3] = [".google.com/", ".googleapis.com/", ".gvt1.com/"];

/// What a browser made of a page.
struct Seen {
    /// The document after its scripts ran.
    dom: String,
    /// What it said on its console: errors, and requests that its policy refused.
    console: Vec<String>,
    /// Addresses it asked for that are not in the file.
    requests: Vec<String>,
}

/// Opens a file in headless Chromium at a phone's width.
fn open(path: &Path, work: &Path) -> Seen {
    let (log, profile) = (work.join("net.json"), work.join("profile"));
    let program = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok())
        .expect("Chromium is not installed");
    let output = Command::new(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--timeout=60000", "--no-first-run"])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
        ])
        .args(["--enable-logging=stderr", "--window-size=390,844"])
        .arg(format!("--log-net-log={}", log.display()))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", path.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let net = std::fs::read_to_string(&log).unwrap_or_default();
    let requests = net.split("\"url\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    Seen {
        dom: String::from_utf8_lossy(&output.stdout).into_owned(),
        console: said.lines().filter(|line| line.contains("CONSOLE")).map(String::from).collect(),
        requests: requests
            .filter(|url| url.starts_with("http") || url.starts_with("ws"))
            .filter(|url| !OF_THE_BROWSER.iter().any(|host| url.contains(host)))
            .map(String::from)
            .collect(),
    }
}

/// Puts a script at the end of a page, whose policy would refuse it.
fn with_script(html: &str, script: &str) -> String {
    let policy = html.find("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
    let end = policy + html[policy..].find('>').unwrap() + 1;
    let open = format!("{}{}", &html[..policy], &html[end..]);
    open.replace("</body>", &format!("<script>{script}</script></body>"))
}

#[test]
#[ignore = "needs Chromium, which .ci/run installs and runs this with"]
fn a_report_opens_without_an_error_or_a_request() {
    let folder = Folder::new();
    folder.done(&format!("{} --epochs 2 --set eval.every=1 --out run", reported()));
    folder.done("compare run --out compare.html");
    let html = String::from_utf8(folder.read("run/report.html")).unwrap();
    let seen = open(&folder.path("run/report.html"), &folder.path("."));
    assert_eq!((seen.console, seen.requests), (vec![], vec![]));
    let figures = html.matches("<figure").count();
    assert!(figures >= 17 && seen.dom.matches("<figure").count() == figures);
    let seen = open(&folder.path("compare.html"), &folder.path("."));
    assert_eq!((seen.console, seen.requests), (vec![], vec![]));

    // What the browser measures: no figure is empty, nothing is wider than the phone, and a point shows its image.
    let probe = r#"
        const wide = document.documentElement.scrollWidth - innerWidth;
        const flat = [...document.querySelectorAll("figure svg")].filter(s => s.getBBox().height < 20 || s.clientWidth < 200);
        const sheet = getComputedStyle(document.querySelector(".t")).backgroundImage.length;
        const svg = document.querySelector('figure[data-points="y"] svg');
        svg.scrollIntoView();
        const data = JSON.parse(document.getElementById("points").textContent);
        const at = new DOMPoint(...data.maps.y[5]).matrixTransform(svg.getScreenCTM());
        svg.dispatchEvent(new PointerEvent("pointerdown", { clientX: at.x, clientY: at.y, pointerType: "touch" }));
        const card = document.getElementById("card");
        const shown = card.getBoundingClientRect();
        const inside = shown.left >= 0 && shown.top >= 0 && shown.right <= innerWidth && shown.bottom <= innerHeight && shown.width > 50;
        document.body.setAttribute("data-probe", [wide, flat.length, card.hidden, inside, card.dataset.image, data.image[5], sheet].join());
    "#;
    folder.write("probe.html", with_script(&html, probe));
    let seen = open(&folder.path("probe.html"), &folder.path("."));
    assert_eq!(seen.console, Vec::<String>::new());
    let probe = attributes(&seen.dom, "data-probe")[0];
    let [wide, flat, hidden, inside, image, expected, sheet] = probe.split(',').collect::<Vec<_>>()[..] else {
        panic!("{probe}")
    };
    assert!(wide.parse::<i32>().unwrap() <= 0, "{wide} pixels too wide");
    assert_eq!((flat, hidden, inside, image), ("0", "false", "true", expected));
    let sheet: usize = sheet.parse().unwrap();
    assert!((1_000..2 << 20).contains(&sheet), "a sheet of {sheet} letters is not shown");

    // And the means of this test see what they should: an error, and requests, refused or not.
    let beacon = "console.error('seen'); new Image().src = 'http://127.0.0.1:9/beacon';";
    folder.write("loud.html", with_script(&html, beacon));
    let seen = open(&folder.path("loud.html"), &folder.path("."));
    assert!(seen.console.iter().any(|line| line.contains("seen")), "{:?}", seen.console);
    assert!(seen.requests.iter().any(|url| url.contains("beacon")), "{:?}", seen.requests);
    let refused =
        html.replace("</body>", "<script>document.title = 'ran'</script><img src=\"http://127.0.0.1:9/x\"></body>");
    folder.write("refused.html", refused);
    let seen = open(&folder.path("refused.html"), &folder.path("."));
    assert!(
        seen.console.len() >= 2 && seen.requests.is_empty() && !seen.dom.contains("<title>ran"),
        "{:?}",
        seen.console
    );
}
