//! What files are read in: variables, folders, other files. All of it is handed in.

/// A file of a stack.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name, as it is shown in errors.
    pub name: &'a str,
    /// What it holds.
    pub text: &'a str,
}

/// Whether variables are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// `$NAME` becomes its value.
    Done,
    /// `$NAME` stays.
    Skipped,
}

/// Where files are read.
#[expect(missing_debug_implementations, reason = "closures")]
pub struct Surroundings<'a> {
    /// The value of a variable of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The text of an env file by its absolute path, or why there is none.
    pub file: &'a dyn Fn(&str) -> Result<String, String>,
    /// Absolute folder of the first file, which relative paths begin at.
    pub folder: &'a str,
    /// What `~` stands for.
    pub home: Option<&'a str>,
    /// Whether variables are replaced.
    pub interpolation: Interpolation,
}

impl Surroundings<'_> {
    /// A path of a file, absolute and without `.` and `..`.
    pub(crate) fn absolute(&self, path: &str) -> String {
        let whole = match (path.strip_prefix('~'), self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                format!("{home}{rest}")
            }
            _ if path.starts_with('/') => path.to_owned(),
            _ => format!("{}/{path}", self.folder),
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in whole.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_the_folder() {
        let surroundings = Surroundings {
            variable: &|_| None,
            file: &|_| Err(String::new()),
            folder: "/srv/app",
            home: Some("/root"),
            interpolation: Interpolation::Done,
        };
        for (path, is) in [
            ("./a", "/srv/app/a"),
            ("../b/./c", "/srv/b/c"),
            ("/x//y/", "/x/y"),
            ("~/z", "/root/z"),
            ("~other", "/srv/app/~other"),
            ("../../../..", "/"),
        ] {
            assert_eq!(surroundings.absolute(path), is, "{path}");
        }
    }
}
