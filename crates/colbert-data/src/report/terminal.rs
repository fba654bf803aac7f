//! The report as text for a terminal.

use std::fmt;

use super::{DataReport, WordLengths};

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.source)?;
        self.write_counts(f)?;
        self.write_lengths(f)?;
        if let Some(teacher) = &self.teacher {
            writeln!(
                f,
                "\n  teacher scores: spread {:.2}, first document ahead by {:.2} on average and best in {:.1} % of {} examples",
                teacher.mean_spread,
                teacher.mean_margin,
                100.0 * teacher.first_is_best,
                teacher.examples
            )?;
        }
        if self.findings.is_empty() {
            return writeln!(f, "\nNothing stands out.");
        }
        writeln!(f)?;
        for finding in &self.findings {
            writeln!(f, "{:<9}{}", finding.severity, finding.message)?;
            for example in &finding.examples {
                writeln!(f, "           e.g. {example}")?;
            }
            writeln!(f, "         -> {}", finding.fix)?;
        }
        Ok(())
    }
}

impl DataReport {
    fn write_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("pairs", self.rows.pairs),
            ("labelled pairs", self.rows.labelled_pairs),
            ("triplets", self.rows.triplets),
            ("scored pairs", self.rows.scored_pairs),
            ("ready-made examples", self.rows.ready_made),
            ("judgements", self.rows.judgements),
            ("further documents", self.rows.documents),
            ("rows left out", self.bad_rows.total()),
        ];
        for (name, count) in rows.into_iter().filter(|(_, count)| *count > 0) {
            writeln!(f, "  {name:<22}{count:>10}")?;
        }
        let distinct = [
            ("distinct queries", self.queries),
            ("distinct documents", self.documents),
            ("positives", self.positives),
            ("given negatives", self.negatives),
        ];
        for (name, count) in distinct {
            writeln!(f, "  {name:<22}{count:>10}")?;
        }
        Ok(())
    }

    /// Words, and tokens if they were counted.
    fn write_lengths(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n  words          mean  median     90%     99%     max")?;
        for (name, words) in [("queries", &self.query_words), ("documents", &self.document_words)] {
            let WordLengths { mean, median, p90, p99, max } = words;
            writeln!(f, "  {name:<11}{mean:>8.1}{median:>8}{p90:>8}{p99:>8}{max:>8}")?;
        }
        let Some(tokens) = &self.tokens else { return Ok(()) };
        writeln!(f, "\n  tokens         mean  median     99%     max    kept at     cut    lost")?;
        for (name, side) in [("queries", &tokens.queries), ("documents", &tokens.documents)] {
            writeln!(
                f,
                "  {name:<11}{:>8.1}{:>8}{:>8}{:>8}{:>11}{:>7.1}%{:>7.1}%",
                side.mean,
                side.median,
                side.keeps_99_percent,
                side.max,
                side.maxlen,
                100.0 * side.cut_share,
                100.0 * side.lost_share
            )?;
        }
        Ok(())
    }
}
