//! `explain`: decisions and their reasons.

use cribwork_proto::cribwork::admin;
use cribwork_proto::cribwork::admin::explain_request::Subject;
use serde::Serialize;

use crate::args::{Explain, Format};
use crate::failure::Failure;
use crate::output::{line, print_fields};
use crate::run::Context;

#[derive(Debug, Serialize)]
struct Candidate {
    store: u64,
    score: u64,
    /// Null for the one that was chosen.
    rejected_because: Option<String>,
}

#[derive(Debug, Serialize)]
struct Decision {
    time_ms: u64,
    scheduler: String,
    /// Null if nothing was.
    chosen: Option<u64>,
    candidates: Vec<Candidate>,
    summary: String,
}

#[derive(Debug, Serialize)]
struct Explanation {
    subject: String,
    decisions: Vec<Decision>,
}

impl From<admin::ExplainResponse> for Explanation {
    fn from(answer: admin::ExplainResponse) -> Self {
        let candidate = |it: admin::CandidateInfo| Candidate {
            store: it.store,
            score: it.score,
            rejected_because: Some(it.rejected_because).filter(|why| !why.is_empty()),
        };
        let decision = |it: admin::DecisionInfo| Decision {
            time_ms: it.time_ms,
            scheduler: it.scheduler,
            chosen: Some(it.chosen_store).filter(|store| *store != 0),
            candidates: it.candidates.into_iter().map(candidate).collect(),
            summary: it.summary,
        };
        let decisions = answer.decisions.into_iter().map(decision).collect();
        Self { subject: answer.subject, decisions }
    }
}

impl Explanation {
    /// For people: the newest look at the end, times as seconds before it.
    fn text(&self) -> String {
        let now = self.decisions.last().map_or(0, |last| last.time_ms);
        let mut lines = Vec::new();
        for decision in &self.decisions {
            let when = match now.saturating_sub(decision.time_ms) {
                0 => "now".to_owned(),
                age => format!("{:.1}s ago", age as f64 / 1000.0),
            };
            lines.push(format!("{when}  {}: {}", decision.scheduler, decision.summary));
            for candidate in &decision.candidates {
                let why = candidate.rejected_because.as_deref().unwrap_or("chosen");
                lines.push(format!("    store {} ({}): {why}", candidate.store, candidate.score));
            }
        }
        lines.join("\n")
    }
}

pub(crate) async fn explain(context: &Context, subject: Explain) -> Result<(), Failure> {
    let subject = match subject {
        Explain::Range { id } => Subject::Range(id),
        Explain::Store { id } => Subject::Store(id),
    };
    let explanation = Explanation::from(context.admin().explain(subject).await?);
    match context.global.output {
        Format::Json => print_fields(Format::Json, &explanation),
        Format::Table => line(explanation.text().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> admin::ExplainResponse {
        let rejected = |store, why: &str| admin::CandidateInfo {
            store,
            score: 7,
            rejected_because: why.to_owned(),
        };
        let decision = |time_ms, chosen_store, candidates| admin::DecisionInfo {
            time_ms,
            scheduler: "repair".to_owned(),
            chosen_store,
            candidates,
            summary: "range 1: it has its 3 replicas".to_owned(),
        };
        let decisions = vec![
            decision(5_000, 4, vec![rejected(2, "is down"), rejected(4, "")]),
            decision(6_500, 0, Vec::new()),
        ];
        admin::ExplainResponse { subject: "range 1".to_owned(), decisions }
    }

    #[test]
    fn explanations_have_the_documented_shape() {
        let json = serde_json::to_string(&Explanation::from(answer())).unwrap();
        assert_eq!(
            json,
            r#"{"subject":"range 1","decisions":[{"time_ms":5000,"scheduler":"repair","chosen":4,"candidates":[{"store":2,"score":7,"rejected_because":"is down"},{"store":4,"score":7,"rejected_because":null}],"summary":"range 1: it has its 3 replicas"},{"time_ms":6500,"scheduler":"repair","chosen":null,"candidates":[],"summary":"range 1: it has its 3 replicas"}]}"#
        );
    }

    #[test]
    fn explanations_read_as_a_story() {
        let text = Explanation::from(answer()).text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "1.5s ago  repair: range 1: it has its 3 replicas");
        assert_eq!(lines[1], "    store 2 (7): is down");
        assert_eq!(lines[2], "    store 4 (7): chosen");
        assert!(lines[3].starts_with("now  "));
    }
}
