//! Reading /proc and /sys, or a copy of them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the machine is described.
#[derive(Clone, Debug)]
pub struct System {
    root: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self::at("/")
    }
}

impl System {
    /// The machine that is described by `proc` and `sys` below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file without the end of its last line, if it can be read.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.path(path)).ok()?.trim_end().to_owned())
    }

    /// A file that holds one value.
    pub(crate) fn value<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.trim().parse().ok()
    }

    /// A file that holds a list such as `0-3,8`.
    pub(crate) fn list(&self, path: &str) -> Option<Vec<usize>> {
        Some(numbers(&self.text(path)?))
    }

    /// The names in a directory, sorted; none if there is no such directory.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    /// The last part of what a symbolic link points at.
    pub(crate) fn link(&self, path: &str) -> Option<String> {
        let target = std::fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Whether a program of this name runs.
    pub(crate) fn runs(&self, program: &str) -> bool {
        let processes =
            self.names("/proc").into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
        processes.into_iter().any(|pid| self.text(&format!("/proc/{pid}/comm")).as_deref() == Some(program))
    }

    /// Whether this is the machine itself.
    pub(crate) fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// The numbers of a list such as `0-3,8`.
pub(crate) fn numbers(text: &str) -> Vec<usize> {
    let ranges = text.split(',').filter_map(|part| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

/// A list of numbers in words: `0, 1, 5`.
pub(crate) fn words(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read_as_the_kernel_writes_them() {
        assert_eq!(numbers("0-3,8"), [0, 1, 2, 3, 8]);
        assert_eq!(numbers("5"), [5]);
        assert_eq!(numbers(""), Vec::<usize>::new());
    }
}
