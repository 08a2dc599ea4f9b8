//! The kernels as PTX, compiled from kernels/*.cu when this crate was built (see build.rs).

/// A kernel file's stem (`nt_xent`, ...) and its PTX for sm_80 and later, sorted by stem.
pub static MODULES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/ptx.rs"));

/// The PTX of the kernel file with this stem.
pub fn module(stem: &str) -> Option<&'static str> {
    MODULES.iter().find(|(name, _)| *name == stem).map(|(_, text)| *text)
}

/// Entry points of a module's text, in order, each with the bytes of its parameters.
pub fn entry_points(text: &str) -> impl Iterator<Item = (&str, Vec<usize>)> {
    text.split(".visible .entry ").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once('(')?;
        let (parameters, _) = rest.split_once(')')?;
        let bytes = parameters.split(',').filter_map(parameter_bytes).collect();
        Some((name.trim(), bytes))
    })
}

/// Of `.param .u64 name` or `.param .align 8 .b8 name[32]`.
fn parameter_bytes(declaration: &str) -> Option<usize> {
    let mut words = declaration.split_whitespace().skip_while(|word| *word != ".param").skip(1);
    let mut kind = words.next()?;
    if kind == ".align" {
        kind = words.nth(1)?;
    }
    let element = kind.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().ok()? / 8;
    let elements = words.next()?.split_once('[').map_or(Some(1), |(_, count)| count.strip_suffix(']')?.parse().ok())?;
    Some(element * elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_measured() {
        let text = ".visible .entry a(\n\t.param .u64 a_param_0,\n\t.param .align 8 .b8 a_param_1[32],\n\t.param .f32 a_param_2\n)\n{ }\n\
                    .visible .entry b()\n{ }";
        let points: Vec<_> = entry_points(text).collect();
        assert_eq!(points, [("a", vec![8, 32, 4]), ("b", vec![])]);
    }

    #[test]
    fn every_module_has_entry_points_for_sm_80() {
        for (stem, text) in MODULES {
            assert!(entry_points(text).count() > 0, "{stem}");
            assert!(text.contains(".target sm_80") && module(stem) == Some(*text), "{stem}");
        }
    }
}
