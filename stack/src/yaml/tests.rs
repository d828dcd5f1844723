use super::*;

fn read(text: &str) -> (Option<Node>, Vec<String>) {
    let mut findings = Findings::default();
    let node = parse(&Arc::from("a.yml"), text, &mut findings);
    let errors = findings.errors.iter().map(Problem::to_string).collect();
    (node, errors)
}

fn whole(text: &str) -> Node {
    let (node, errors) = read(text);
    assert_eq!(errors, Vec::<String>::new());
    node.expect("a tree")
}

#[test]
fn parts_know_their_places() {
    let node = whole("a:\n  b: [1, x]\n");
    let list = node.get("a").and_then(|a| a.get("b")).expect("a list");
    assert_eq!(list.items()[1].text(), Some("x"));
    assert_eq!(list.items()[1].at.to_string(), "a.yml:2:10");
    assert_eq!(
        node.get("a").expect("a").entries()[0].at.to_string(),
        "a.yml:2:3"
    );
}

#[test]
fn merged_keys_give_way() {
    let node = whole("a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 5\n");
    let c = node.get("c").expect("c");
    let value = |key| c.get(key).and_then(Node::whole);
    assert_eq!(
        (value("x"), value("y"), value("z")),
        (Some(5), Some(2), Some(4))
    );
    // A quoted one is a key like others.
    let node = whole("a: {\"<<\": 1}\n");
    assert_eq!(
        node.get("a")
            .and_then(|a| a.get("<<"))
            .and_then(Node::whole),
        Some(1)
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, says) in [
        (
            "a: 1\nb: 2\na: 3\n",
            "a.yml:3:1: file mapping key \"a\" already defined at line 1",
        ),
        (
            "a:\n  b: 1\n  b: 2\n",
            "a.yml:3:3: a mapping key \"b\" already defined at line 2",
        ),
        (
            "a:\n  8080: x\n",
            "a.yml:2:3: Non-string key in a: 8080; put the key in quotes",
        ),
        (
            "a: &x [1, *x]\n",
            "a.yml:1:11: a.1 is an alias of what it is a part of",
        ),
        ("a: *x\n", "a.yml:1:4: file is no YAML:"),
        ("a: !reset null\n", "a.yml:1:11: a has the tag !reset"),
        (
            "a:\n  <<: 3\n",
            "a.yml:2:7: a.<< must be a mapping or a list of mappings",
        ),
        ("", "a.yml:1:1: the file is empty"),
        (
            "a: 1\n---\nb: 2\n",
            "a.yml:2:1: a second document begins here",
        ),
    ] {
        let (_, errors) = read(text);
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        let position_may_differ = says.contains("no YAML") || says.contains("the tag");
        let (_, behind) = says.split_once(": ").expect("a place");
        let fits = if position_may_differ {
            errors[0].contains(behind)
        } else {
            errors[0].starts_with(says)
        };
        assert!(fits, "{text}: {errors:?}");
    }
    let (_, errors) = read("a:\n\t- b\n");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("is no YAML"), "{errors:?}");
}

#[test]
fn bombs_are_counted_before_they_grow() {
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 9].join(", ");
        laughs.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
    }
    let (node, errors) = read(&laughs);
    assert!(node.is_none());
    assert!(errors[0].contains("more than 100000 values"), "{errors:?}");

    let text = "x".repeat(1 << 20);
    let long = format!("a: &a {text}\nb: [{}]\n", vec!["*a"; 20].join(", "));
    let (node, errors) = read(&long);
    assert!(node.is_none());
    assert!(errors[0].contains("bytes of text"), "{errors:?}");

    // The parser has an end of its own, which comes later.
    for (levels, said) in [(100, "levels deep"), (500, "recursion limit")] {
        let deep = format!("a: {}{}\n", "[".repeat(levels), "]".repeat(levels));
        let (node, errors) = read(&deep);
        assert!(node.is_none());
        assert!(errors[0].contains(said), "{errors:?}");
    }

    let wide = format!("a: [{}]\n", vec!["1"; MAX_NODES].join(","));
    let (node, errors) = read(&wide);
    assert!(node.is_none());
    assert!(errors[0].contains("more than 100000 values"), "{errors:?}");

    let (node, errors) = read(&"#".repeat(MAX_TEXT + 1));
    assert!(node.is_none());
    assert!(errors[0].contains("may have 4194304"), "{errors:?}");
}
