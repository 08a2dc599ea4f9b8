//! Choices with names: one list serves the command line, configuration files and messages.

/// Ties the names of `clap::ValueEnum` to values both ways, for serde (`try_from = "String", into = "String"`) and display.
macro_rules! named {
    ($($choice:ident)*) => {$(
        impl TryFrom<String> for $choice {
            type Error = String;
            fn try_from(name: String) -> Result<Self, String> {
                <$choice as clap::ValueEnum>::from_str(&name, false).map_err(|_| {
                    let variants = <$choice as clap::ValueEnum>::value_variants();
                    let names: Vec<_> = variants.iter().map(|v| v.to_string()).collect();
                    format!("expected one of {}", names.join(", "))
                })
            }
        }

        impl From<$choice> for String {
            fn from(choice: $choice) -> String {
                choice.to_string()
            }
        }

        impl std::fmt::Display for $choice {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(clap::ValueEnum::to_possible_value(self).expect("no variant is skipped").get_name())
            }
        }
    )*};
}
pub(crate) use named;
