//! Where something is in the file system of a task.

/// A path in the one spelling that managers compare: `/y` of `/y/` and `//./y`.
pub(crate) fn place(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<&str> = parts.collect();
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_spelling() {
        for (path, is) in [
            ("/y", "/y"),
            ("/y/", "/y"),
            ("//./y/./z", "/y/z"),
            ("/", "/"),
            ("/a/../b", "/a/../b"),
        ] {
            assert_eq!(place(path), is);
        }
    }
}
