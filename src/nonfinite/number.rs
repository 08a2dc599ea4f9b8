//! Numbers in JSON, which has no NaN and no infinity.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number as JSON has it, or one of the words `NaN`, `inf` and `-inf`. All NaN are equal.
#[derive(Clone, Copy, Debug)]
pub struct Number(pub f64);

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.0.to_bits() == other.0.to_bits() || self.0.is_nan() && other.0.is_nan()
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Number(number) = *self;
        if number.is_finite() && number != 0.0 && !(1e-4..1e7).contains(&number.abs()) {
            write!(f, "{number:e}")
        } else {
            write!(f, "{number}")
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() { serializer.serialize_f64(self.0) } else { serializer.collect_str(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Word(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(Number(number)),
            Form::Word(word) => match word.as_str() {
                "NaN" => Ok(Number(f64::NAN)),
                "inf" => Ok(Number(f64::INFINITY)),
                "-inf" => Ok(Number(f64::NEG_INFINITY)),
                _ => Err(de::Error::custom("a number, \"NaN\", \"inf\" or \"-inf\" was expected")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        for number in [0.0, -0.0, 1.0 / 3.0, 5e-324, f64::MAX, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let text = serde_json::to_string(&Number(number)).unwrap();
            assert_eq!(serde_json::from_str::<Number>(&text).unwrap(), Number(number), "{text}");
        }
        assert_ne!(Number(0.0), Number(-0.0));
        for word in ["\"nan\"", "\"1\"", "null", "[1]", "true"] {
            assert!(serde_json::from_str::<Number>(word).is_err(), "{word}");
        }
        assert_eq!([1e30, 0.25, f64::NAN].map(|number| Number(number).to_string()), ["1e30", "0.25", "NaN"]);
    }
}
