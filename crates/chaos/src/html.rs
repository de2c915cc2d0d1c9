//! The report as one page that needs nothing else. Pure.

use std::fmt::Write;

use serde_json::Value;

use crate::kind::{KINDS, Kind};
use crate::report::{FaultRow, LoadRow, Report, Verdict};
use crate::stores::Compared;
use crate::timeline::{Band, escape, hue, svg};

const STYLE: &str = "\
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}\
body{max-width:1160px;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%;margin:.5rem 0 2rem}\
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #8884;vertical-align:top}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
.verdict{display:inline-block;padding:.2rem .8rem;border-radius:.4rem;color:#fff;font-weight:600}\
.holds{background:#1a7f37}.violated{background:#cf222e}.unchecked{background:#9a6700}\
.bad{color:#cf222e}.dot{display:inline-block;width:.7em;height:.7em;border-radius:50%}\
svg{width:100%;height:auto}.line{fill:none;stroke:currentColor;stroke-width:1.2}\
text{font-size:11px;fill:currentColor}pre{white-space:pre-wrap;overflow-wrap:anywhere}";

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let verdict = match report.verdict {
        Verdict::Holds => "holds",
        Verdict::Violated => "violated",
        Verdict::Unchecked => "unchecked",
    };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>Cribwork chaos, seed {seed}: {verdict}</title><style>{STYLE}</style></head><body>\n\
         <h1>Chaos on real processes</h1>\n\
         <p><span class=\"verdict {verdict}\">{verdict}</span> seed {seed}, {nodes} nodes, load \
         {duration:.0} s, {faults} faults</p>\n",
        seed = report.seed,
        nodes = report.nodes,
        duration = report.duration_s,
        faults = report.faults.len(),
    );
    problems(report, &mut page);
    loads(&report.loads, &mut page);
    stores(report.stores.as_ref(), &mut page);
    page.push_str("<h2>Operations per second of the register workload, with the faults</h2>\n");
    page.push_str(&svg(&report.ops_per_second, &bands(&report.faults)));
    kinds(report, &mut page);
    faults(&report.faults, &mut page);
    page + "</body></html>\n"
}

fn problems(report: &Report, page: &mut String) {
    if report.problems.is_empty() {
        return;
    }
    page.push_str("<h2 class=\"bad\">Problems</h2>\n<ul>\n");
    for problem in &report.problems {
        let _ = writeln!(page, "<li>{}</li>", escape(problem));
    }
    page.push_str("</ul>\n");
}

fn loads(loads: &[LoadRow], page: &mut String) {
    page.push_str(
        "<h2>What the workloads say</h2>\n<table><tr><th>workload<th>exit<th>says</tr>\n",
    );
    for load in loads {
        let exit = load.exit.map_or("ended by the harness".to_owned(), |exit| exit.to_string());
        let class = if load.exit == Some(0) { "" } else { " class=\"bad\"" };
        let _ = writeln!(
            page,
            "<tr{class}><td>{}<td>{exit}<td>{}</tr>",
            load.name,
            load.report.as_ref().map_or(String::new(), |report| escape(&told(report)))
        );
        if !load.said.is_empty() {
            let _ = writeln!(page, "<tr><td><td colspan=2><pre>{}</pre></tr>", escape(&load.said));
        }
    }
    page.push_str("</table>\n");
}

fn stores(compared: Option<&Compared>, page: &mut String) {
    page.push_str("<h2>What is on the disks of the stopped nodes</h2>\n");
    let (class, told) = match compared {
        Some(compared) if compared.exit == Some(0) => ("", compared.told()),
        Some(compared) => (" class=\"bad\"", format!("{}\n{}", compared.told(), compared.said)),
        None => (" class=\"bad\"", "not compared".to_owned()),
    };
    let _ = writeln!(page, "<pre{class}>{}</pre>", escape(&told));
}

/// The fields of a workload's report that matter here.
fn told(report: &Value) -> String {
    const FIELDS: [&str; 12] = [
        "ok",
        "ops",
        "errors",
        "unknown",
        "max_gap_ms",
        "committed",
        "acknowledged_lost",
        "aborted_but_applied",
        "replay_mismatch",
        "total_expected",
        "total_observed",
        "operations",
    ];
    let mut told: Vec<_> = FIELDS
        .iter()
        .filter_map(|field| report.get(field).map(|value| format!("{field} {value}")))
        .collect();
    for verdict in report["verdicts"].as_array().into_iter().flatten() {
        let checker = verdict["checker"].as_str().unwrap_or("?");
        told.push(format!(
            "{checker}: {} checked, {} violations",
            verdict["checked"], verdict["violations"]
        ));
    }
    told.join(" · ")
}

fn colour(kind: Kind) -> usize {
    KINDS.iter().position(|other| *other == kind).unwrap_or_default()
}

fn bands(faults: &[FaultRow]) -> Vec<Band> {
    let band = |fault: &FaultRow| Band {
        name: fault.kind.name(),
        target: fault.target.clone(),
        colour: colour(fault.kind),
        from_s: fault.start_s,
        undone_s: fault.end_s,
        ready_s: fault.ready_s,
    };
    faults.iter().map(band).collect()
}

fn dot(kind: Kind) -> String {
    let hue = hue(colour(kind));
    format!("<span class=\"dot\" style=\"background:hsl({hue} 70% 50%)\"></span> {}", kind.name())
}

fn kinds(report: &Report, page: &mut String) {
    page.push_str(
        "<h2>By kind</h2>\n<table><tr><th>kind<th class=\"n\">faults<th class=\"n\">longest gap, ms\
         <th class=\"n\">median gap, ms<th class=\"n\">slowest operation, ms\
         <th class=\"n\">longest recovery, ms<th>what it is</tr>\n",
    );
    for row in &report.kinds {
        let _ = writeln!(
            page,
            "<tr><td>{}<td class=\"n\">{}<td class=\"n\">{:.0}<td class=\"n\">{:.0}<td class=\"n\">{:.0}\
             <td class=\"n\">{:.0}<td>{}</tr>",
            dot(row.kind),
            row.runs,
            row.gap_ms_max,
            row.gap_ms_median,
            row.slowest_ms_max,
            row.recovery_ms_max,
            row.kind.what()
        );
    }
    for skipped in &report.skipped {
        let name = skipped.kind.name();
        let reason = escape(&skipped.reason);
        let _ = writeln!(page, "<tr><td>{name}<td colspan=6>SKIPPED: {reason}</tr>");
    }
    for kind in &report.not_reached {
        let _ = writeln!(page, "<tr><td>{}<td colspan=6>not reached in the time</tr>", kind.name());
    }
    page.push_str("</table>\n");
}

fn faults(faults: &[FaultRow], page: &mut String) {
    page.push_str(
        "<h2>Faults</h2>\n<table><tr><th>kind<th>what it hit<th class=\"n\">start, s<th class=\"n\">\
         undone, s<th class=\"n\">whole again, s<th class=\"n\">gap, ms<th class=\"n\">slowest, ms\
         <th>notes</tr>\n",
    );
    for fault in faults {
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td class=\"n\">{:.1}<td class=\"n\">{:.1}<td class=\"n\">{:.1}\
             <td class=\"n\">{:.0}<td class=\"n\">{:.0}<td>{}",
            dot(fault.kind),
            escape(&fault.target),
            fault.start_s,
            fault.end_s,
            fault.ready_s,
            fault.gap_ms,
            fault.slowest_ms,
            escape(&fault.notes.join("; "))
        );
        for problem in &fault.problems {
            let _ = write!(page, "<div class=\"bad\">{}</div>", escape(problem));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gaps::Seen;
    use crate::load::Ended;
    use crate::report::{Findings, Skipped};

    #[test]
    fn the_page_names_everything_and_needs_nothing() {
        let report = json!({
            "ok": true, "ops": 7, "max_gap_ms": 12.5,
            "verdicts": [{"checker": "linearizable", "checked": 7, "violations": 0}],
        });
        let register =
            Ended { name: "register", code: Some(0), report: Some(report), said: String::new() };
        let findings = Findings {
            seed: 77,
            kinds: vec![Kind::Admin],
            skipped: vec![Skipped { kind: Kind::Loss, reason: "only <root> may".into() }],
            loads: vec![register],
            problems: vec!["node1: thread 'x' panicked & died".into()],
            ..Findings::default()
        };
        let stores =
            Compared { equal: 20, ranges: 21, different: 1, exit: Some(2), ..Default::default() };
        let findings = Findings { stores: Some(stores), ..findings };
        let page = page(&Report::new(findings, &Seen::default()));
        for words in [
            "seed 77",
            "verdict violated",
            "SKIPPED: only &lt;root&gt; may",
            "not reached",
            "panicked &amp; died",
            "linearizable: 7 checked, 0 violations",
            "max_gap_ms 12.5",
            "20 of 21 ranges equal on all stopped stores, 1 different",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
        for foreign in ["http://", "https://", "src=", "<script", "@import"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
