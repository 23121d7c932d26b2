/// Windows in the form in which they travel. Times are nanoseconds.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "kind")]
pub(super) enum WindowsForm {
    Aligned {
        length: u64,
        offset: u64,
    },
    FirstHit {
        length: u64,
    },
    #[cfg(feature = "calendar")]
    Days {
        time_zone: String,
    },
    #[cfg(feature = "calendar")]
    Months {
        time_zone: String,
    },
}
