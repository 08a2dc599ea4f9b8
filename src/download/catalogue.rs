//! The data sets whose files are known.

use super::RemoteFile;
use crate::{Error, Result};

/// A published data set, in its official binary archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Published {
    /// 60,000 images of 32 x 32 pixels, 10 classes (170 MB).
    Cifar10,
    /// 60,000 images of 32 x 32 pixels, 100 classes in 20 superclasses (169 MB).
    Cifar100,
    /// 113,000 images of 96 x 96 pixels, 13,000 of them in 10 classes (2.6 GB).
    Stl10,
}

impl Published {
    /// All of them.
    pub const ALL: [Published; 3] = [Published::Cifar10, Published::Cifar100, Published::Stl10];

    /// Its archive, at its official address or below `mirror`, a base address under which the file has the same name.
    ///
    /// # Errors
    /// [`Error::Usage`] if `mirror` is no `http://` or `https://` address to which a name can be added.
    pub fn file(self, mirror: Option<&str>) -> Result<RemoteFile> {
        let (folder, name, bytes, md5) = self.description();
        let folder = mirror.unwrap_or(folder);
        let host = folder.strip_prefix("https://").or_else(|| folder.strip_prefix("http://"));
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b));
        if !host.is_some_and(|host| plain(host) && !host.is_empty() && !host.starts_with('/')) {
            let problem = format!(
                "--mirror {folder}: give the http:// or https:// address of the folder that holds {name}, such as {}",
                self.description().0
            );
            return Err(Error::Usage(problem));
        }
        let url = format!("{}/{name}", folder.trim_end_matches('/'));
        Ok(RemoteFile { name: name.into(), url, bytes, md5: md5.into() })
    }

    /// The preset that trains on it.
    pub fn preset(self) -> &'static str {
        match self {
            Published::Cifar10 => "cifar10",
            Published::Cifar100 => "cifar100-20",
            Published::Stl10 => "stl10",
        }
    }

    /// Folder, name, bytes, MD5.
    ///
    /// The digests of both CIFAR archives stand on their page (<https://www.cs.toronto.edu/~kriz/cifar.html>); STL-10's
    /// authors publish none, so its digest is the one torchvision checks (`torchvision/datasets/stl10.py`). The sizes are
    /// those that downloads of these files are reported with.
    fn description(self) -> (&'static str, &'static str, u64, &'static str) {
        const KRIZ: &str = "https://www.cs.toronto.edu/~kriz/";
        const COATES: &str = "https://ai.stanford.edu/~acoates/stl10/";
        match self {
            Published::Cifar10 => (KRIZ, "cifar-10-binary.tar.gz", 170_052_171, "c32a1d4ab5d03f1284b67883e8d87530"),
            Published::Cifar100 => (KRIZ, "cifar-100-binary.tar.gz", 168_513_733, "03b5dce01913d631647c71ecec9e9cb8"),
            Published::Stl10 => (COATES, "stl10_binary.tar.gz", 2_640_397_119, "91f7769df0f17e558f3565bffb0c7dfb"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::presets;

    #[test]
    fn every_entry_is_whole() {
        for published in Published::ALL {
            let file = published.file(None).unwrap();
            assert!(file.md5.len() == 32 && file.md5.bytes().all(|b| b"0123456789abcdef".contains(&b)));
            assert!(file.url.ends_with(&format!("/{}", file.name)) && file.url.starts_with("https://"));
            assert!(presets().iter().any(|preset| preset.name == published.preset()));
        }
    }

    #[test]
    fn mirrors_are_base_addresses() {
        for mirror in ["http://here:8000/data", "http://here:8000/data/", "https://here/a/../b", "http://[::1]:80"] {
            let file = Published::Cifar10.file(Some(mirror)).unwrap();
            assert_eq!(file.url, format!("{}/cifar-10-binary.tar.gz", mirror.trim_end_matches('/')));
            assert_eq!(file.name, "cifar-10-binary.tar.gz");
        }
        for mirror in ["", "here", "ftp://here/", "file:///etc/", "http://", "http:///x", "http://a/?q=", "http://a b/"]
        {
            let error = Published::Stl10.file(Some(mirror)).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("stl10_binary.tar.gz"), "{error}");
        }
    }
}
