//! The `AppArmor` profile of containers: only where the kernel has `AppArmor` on and one is loaded.

/// weft's own, else the one that a Docker on this machine has loaded.
const PROFILES: [&str; 2] = ["weft-default", "docker-default"];
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// The profile for a container of this node.
pub(crate) fn profile() -> Option<&'static str> {
    let enabled = std::fs::read_to_string(ENABLED).ok()?;
    choose(&enabled, &std::fs::read_to_string(LOADED).ok()?)
}

/// Lines of `loaded` are `NAME (MODE)`.
fn choose(enabled: &str, loaded: &str) -> Option<&'static str> {
    let is_loaded = |profile: &&str| {
        let mut names = loaded.lines().filter_map(|line| line.rsplit_once(" ("));
        names.any(|(name, _)| name == *profile)
    };
    (enabled.trim() == "Y")
        .then(|| PROFILES.into_iter().find(is_loaded))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_counts_where_it_is_loaded() {
        let loaded = "lsb_release (enforce)\ndocker-default (enforce)\nweft-default.x (enforce)\n";
        assert_eq!(choose("Y\n", loaded), Some("docker-default"));
        assert_eq!(choose("N\n", loaded), None);
        assert_eq!(choose("Y\n", "lsb_release (enforce)\n"), None);
        let both = format!("{loaded}weft-default (complain)\n");
        assert_eq!(choose("Y\n", &both), Some("weft-default"));
    }
}
