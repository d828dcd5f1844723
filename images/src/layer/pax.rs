//! Extended headers: what POSIX pax says of one entry beyond its own header.
//!
//! Read by the length of each record, where the tar crate splits them at newlines: values of
//! `security.capability` are binary, and hold newlines.

use super::entry::{Attribute, Time};

/// Attributes stand here, as star named them.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";
/// Attributes of one entry. ext4 has room for fewer, and each is compared with all before.
const MOST_ATTRIBUTES: usize = 256;

/// What a sparse file says of itself in formats 0.0, 0.1 and 1.0 of GNU tar.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SparseKeys {
    /// `GNU.sparse.major` and `.minor`.
    pub(crate) version: (Option<u64>, Option<u64>),
    /// Size of the file when it is unpacked.
    pub(crate) size: Option<u64>,
    /// Offset, length, offset, length, …
    pub(crate) map: Option<Vec<u64>>,
    /// Its name, as that of the entry is one made up.
    pub(crate) name: Option<Vec<u8>>,
}

/// All records that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<i64>,
    pub(crate) gid: Option<i64>,
    pub(crate) modified: Option<Time>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) sparse: SparseKeys,
}

/// True for attributes that are unpacked: what programs say of their files, and capabilities. The
/// kernel's others are refused by it or, like `trusted.overlay.redirect` and its unprivileged twin
/// `user.overlay.redirect`, would make overlay follow an image's word through other layers.
fn is_wanted(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.contains(&0))
}

/// Reads the records of one extended header. POSIX.1-2017, pax, "pax Extended Header".
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(mut data: &[u8]) -> Result<Pax, &'static str> {
    let mut pax = Pax::default();
    while !data.is_empty() {
        let (key, value, rest) = record(data).ok_or("an extended header is malformed")?;
        pax.take(key, value)?;
        data = rest;
    }
    Ok(pax)
}

/// `LENGTH KEY=VALUE\n`, and what follows it.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let len = usize::try_from(decimal(&data[..space])?).ok()?;
    if len > data.len() || len < space + 3 {
        return None;
    }
    let (record, rest) = data.split_at(len);
    let (end, record) = record[space + 1..].split_last()?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    (*end == b'\n' && equals > 0).then(|| (&record[..equals], &record[equals + 1..], rest))
}

/// Digits alone.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// `-1234.5678`: fractions below a nanosecond are cut.
fn time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some(Time {
            seconds: seconds.checked_sub(1)?,
            nanos: 1_000_000_000 - nanos,
        });
    }
    Some(Time { seconds, nanos })
}

impl Pax {
    /// One record. An empty value stands for what the entry's own header says.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "a number in an extended header is none";
        let given = (!value.is_empty()).then_some(value);
        let text = || given.map(<[u8]>::to_vec);
        let number = || given.map(|v| decimal(v).ok_or(BAD)).transpose();
        let id = || {
            let signed = |v: u64| i64::try_from(v).map_err(|_| BAD);
            number()?.map(signed).transpose()
        };
        if let Some(name) = key.strip_prefix(ATTRIBUTE) {
            if is_wanted(name) {
                self.attributes.retain(|(other, _)| other != name);
                if self.attributes.len() == MOST_ATTRIBUTES {
                    return Err("an extended header of more than 256 attributes");
                }
                self.attributes.push((name.to_vec(), value.to_vec()));
            }
            return Ok(());
        }
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = id()?,
            b"gid" => self.gid = id()?,
            b"mtime" => self.modified = given.map(|v| time(v).ok_or(BAD)).transpose()?,
            b"GNU.sparse.major" => self.sparse.version.0 = number()?,
            b"GNU.sparse.minor" => self.sparse.version.1 = number()?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = number()?,
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',');
                let numbers: Option<Vec<u64>> = numbers.map(decimal).collect();
                self.sparse.map = Some(numbers.ok_or(BAD)?);
            }
            // Format 0.0 has one record for each number.
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let number = decimal(value).ok_or(BAD)?;
                self.sparse.map.get_or_insert_default().push(number);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &[u8]) -> Vec<u8> {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut len = body.len();
        while len != body.len() + len.to_string().len() {
            len = body.len() + len.to_string().len();
        }
        [len.to_string().as_bytes(), &body].concat()
    }

    #[test]
    fn records_are_read_by_their_length() {
        let capability = b"\x01\0\0\x02\n\n=\n\0\0\0\0\0\0\0\0\0\0\0\0";
        let data = [
            one("path", "a/ü\n=b".as_bytes()),
            one("SCHILY.xattr.security.capability", capability),
            one("SCHILY.xattr.user.mime", b""),
            one("size", b"8589934593"),
            one("uid", b"4000000000"),
            one("mtime", b"12.5"),
            one("comment", &[0xff; 300]),
        ]
        .concat();
        let pax = parse(&data).expect("records");
        assert_eq!(pax.path.as_deref(), Some("a/ü\n=b".as_bytes()));
        assert_eq!(pax.size, Some(8_589_934_593));
        assert_eq!((pax.uid, pax.gid), (Some(4_000_000_000), None));
        let nanos = 500_000_000;
        assert_eq!(pax.modified, Some(Time { seconds: 12, nanos }));
        assert_eq!(
            pax.attributes,
            [
                (b"security.capability".to_vec(), capability.to_vec()),
                (b"user.mime".to_vec(), Vec::new())
            ]
        );
    }

    #[test]
    fn what_overlay_would_follow_is_left_out() {
        let names = [
            "trusted.overlay.redirect",
            "trusted.overlay.opaque",
            "user.overlay.redirect",
            "user.overlay.metacopy",
            "security.ima",
            "system.posix_acl_access",
            "user.a\0b",
        ];
        for name in names {
            let data = one(&format!("SCHILY.xattr.{name}"), b"/etc");
            assert!(parse(&data).expect("a record").attributes.is_empty());
        }
    }

    #[test]
    fn attributes_are_few() {
        let of = |count: usize| -> Vec<u8> {
            let names = (0..count).map(|n| one(&format!("SCHILY.xattr.user.{n}"), b"x"));
            names.flatten().collect()
        };
        let most = of(MOST_ATTRIBUTES);
        assert_eq!(parse(&most).expect("records").attributes.len(), 256);
        // The same one again is no other one.
        let again = [most, one("SCHILY.xattr.user.0", b"y")].concat();
        assert_eq!(parse(&again).expect("records").attributes.len(), 256);
        parse(&of(MOST_ATTRIBUTES + 1)).expect_err("too many");
    }

    #[test]
    fn malformed_records_are_errors() {
        let bad: [&[u8]; 12] = [
            b"x",
            b"5 a=b",
            b"6 a=b\n\n",
            b"99 a=b\n",
            b"4 a=\n",
            b"5 =b\n",
            b"6 abc\n",
            b"-6 a=b\n",
            b"18446744073709551616 a=b\n",
            b"0 \n",
            b"11 size=-1\n",
            b"11 size=0x\n",
        ];
        for data in bad {
            parse(data).expect_err(&String::from_utf8_lossy(data));
        }
        assert_eq!(parse(b""), Ok(Pax::default()));
        let reset = [one("path", b"x"), one("path", b"")].concat();
        assert_eq!(parse(&reset).expect("records").path, None);
    }

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        let of = |text: &str| time(text.as_bytes()).map(|t| (t.seconds, t.nanos));
        assert_eq!(of("0"), Some((0, 0)));
        assert_eq!(of("1.000000001"), Some((1, 1)));
        assert_eq!(of("1.0000000019"), Some((1, 1)));
        assert_eq!(of("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(of("-0.5"), Some((-1, 500_000_000)));
        for bad in ["", ".", "a", "1.x", "1.-5", "99999999999999999999"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
