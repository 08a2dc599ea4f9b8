//! Why a feature head answers as it does.
