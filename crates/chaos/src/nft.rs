//! Text of packet filter rules, for `nft -f -` in the namespace of one node.

/// Which packets of a node are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Those from these addresses.
    NotHear(Vec<String>),
    /// Those from and to these addresses.
    Apart(Vec<String>),
    /// All but its own.
    Alone,
    /// So many of a hundred that come from these addresses.
    Lossy(u32, Vec<String>),
}

/// Takes all rules away; never fails, whether there are some or not.
pub(crate) const HEALED: &str = "add table inet chaos\ndelete table inet chaos\n";

impl Rule {
    /// A whole ruleset in place of the one before.
    pub(crate) fn text(&self) -> String {
        let (input, output) = match self {
            Rule::NotHear(from) => (format!("ip saddr {} drop", set(from)), String::new()),
            Rule::Apart(others) => {
                (format!("ip saddr {} drop", set(others)), format!("ip daddr {} drop", set(others)))
            }
            Rule::Alone => ("iifname != \"lo\" drop".into(), "oifname != \"lo\" drop".into()),
            Rule::Lossy(percent, from) => (
                format!("ip saddr {} numgen random mod 100 < {percent} drop", set(from)),
                String::new(),
            ),
        };
        let chains = [("input", input), ("output", output)].map(|(hook, rule)| match rule.as_str() {
            "" => String::new(),
            rule => format!(
                "  chain {hook} {{\n    type filter hook {hook} priority 0; policy accept;\n    \
                 {rule}\n  }}\n"
            ),
        });
        format!("{HEALED}table inet chaos {{\n{}}}\n", chains.concat())
    }
}

fn set(addresses: &[String]) -> String {
    format!("{{ {} }}", addresses.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_has_no_rule_for_what_goes_out() {
        let text = Rule::NotHear(vec!["10.0.0.1".into(), "10.0.0.2".into()]).text();
        let expected = "\
add table inet chaos
delete table inet chaos
table inet chaos {
  chain input {
    type filter hook input priority 0; policy accept;
    ip saddr { 10.0.0.1, 10.0.0.2 } drop
  }
}
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_other_rules() {
        let apart = Rule::Apart(vec!["10.0.0.1".into()]).text();
        assert!(apart.contains("ip saddr { 10.0.0.1 } drop"), "{apart}");
        assert!(apart.contains("ip daddr { 10.0.0.1 } drop"), "{apart}");
        let alone = Rule::Alone.text();
        assert!(alone.contains("iifname != \"lo\" drop"), "{alone}");
        let lossy = Rule::Lossy(30, vec!["10.0.0.1".into()]).text();
        assert!(lossy.contains("ip saddr { 10.0.0.1 } numgen random mod 100 < 30 drop"), "{lossy}");
    }
}
