//! A teacher's scores: what they filter, where they go, and what is computed only once.

use std::sync::atomic::{AtomicUsize, Ordering};

use colbert_config::{Miner, NegativeOptions};
use colbert_data::{
    DataError, MiningPhase, PrepareOptions, PrepareReport, RawData, ReadOptions, ScoreCache, Teacher, Teaching,
    TrainingSet, export_scored, prepare, prepare_with_teacher, read_training_data,
};

/// Scores a document by the number that stands at its end; counts the pairs that it is asked for.
#[derive(Debug, Default)]
struct ByNumber {
    asked: AtomicUsize,
    /// Documents that are another one than that of the pair before.
    changes: AtomicUsize,
    /// Pairs after which it fails, as a process that is killed would.
    fails_after: Option<usize>,
    /// Its answer to everything.
    always: Option<Vec<f32>>,
}

fn number(document: &str) -> f32 {
    document.rsplit(' ').next().unwrap().parse().unwrap()
}

impl Teacher for ByNumber {
    fn name(&self) -> String {
        "numbers".to_owned()
    }

    fn fingerprint(&self) -> String {
        "numbers".to_owned()
    }

    fn scores(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, DataError> {
        let before = self.asked.fetch_add(pairs.len(), Ordering::SeqCst);
        if self.fails_after.is_some_and(|most| before >= most) {
            return Err(DataError::Teacher { teacher: self.name(), source: "killed".into() });
        }
        let changes = pairs.windows(2).filter(|two| two[0].1 != two[1].1).count() + 1;
        self.changes.fetch_add(changes, Ordering::SeqCst);
        let found = pairs.iter().map(|(_, document)| number(document)).collect();
        Ok(self.always.clone().unwrap_or(found))
    }
}

fn options(change: impl FnOnce(&mut NegativeOptions)) -> PrepareOptions {
    let mut negatives = NegativeOptions { miner: Miner::Random, num_new_negatives: 5, ..NegativeOptions::default() };
    change(&mut negatives);
    PrepareOptions { negatives, ..PrepareOptions::default() }
}

/// Queries with a positive of score 10 each, and 40 other documents with scores from 0 to 39 over 2.
fn raw(queries: usize) -> RawData {
    let pairs = (0..queries).map(|query| (format!("query {query}"), format!("positive of {query} 10")));
    let mut raw = RawData::from_pairs(pairs).unwrap();
    raw.add_documents((0..40).map(|number| format!("other {}", f64::from(number) / 2.0))).unwrap();
    raw
}

fn taught(
    raw: RawData,
    options: &PrepareOptions,
    teacher: &ByNumber,
    cache: Option<&ScoreCache>,
) -> Result<(TrainingSet, PrepareReport), DataError> {
    prepare_with_teacher(raw, options, None, Some(Teaching { teacher, cache, exchange: None }), &|_, _, _| ())
}

fn assert_own_scores(set: &TrainingSet) {
    for example in &set.examples {
        let scores = example.scores.as_ref().unwrap();
        let own: Vec<f32> = example.documents.iter().map(|pid| number(set.collection.text(*pid))).collect();
        assert_eq!(*scores, own);
    }
}

#[test]
fn candidates_that_the_teacher_scores_near_the_positive_are_left_out_and_all_others_get_scores() {
    let teacher = ByNumber::default();
    let (set, report) = taught(raw(50), &options(|_| ()), &teacher, None).unwrap();
    assert_own_scores(&set);
    let highest = set.examples.iter().flat_map(|example| &example.scores.as_ref().unwrap()[1..]);
    let highest = highest.copied().fold(0.0, f32::max);
    // 0.95 of the positive's 10, and candidates come in halves.
    assert_eq!(highest, 9.5);
    assert!(report.dropped_close > 100, "about half of ten candidates each: {}", report.dropped_close);
    assert_eq!((report.teacher.as_deref(), report.teacher_known), (Some("numbers"), 0));
    assert_eq!(report.teacher_pairs, 50 + 500, "a positive and twice five candidates each");
    assert_eq!(teacher.asked.load(Ordering::SeqCst), report.teacher_pairs, "each pair once");
    assert!(report.to_string().contains("550 query-document pairs scored by numbers, 0 of them"), "{report}");
    let off = options(|negatives| negatives.positive_score_share = None);
    let (set, report) = taught(raw(50), &off, &teacher, None).unwrap();
    assert_eq!(report.dropped_close, 0);
    assert_eq!(set.examples.len(), 250, "five negatives for each");
    assert_own_scores(&set);
}

#[test]
fn given_negatives_and_ready_made_rows_get_scores_and_scores_that_came_along_stay() {
    let none = options(|negatives| negatives.num_new_negatives = 0);
    let triplets = [("q", vec!["good 3"], vec!["bad 7", "worse 1"])];
    let (set, report) = taught(RawData::from_triplets(triplets).unwrap(), &none, &ByNumber::default(), None).unwrap();
    assert_own_scores(&set);
    assert_eq!((set.examples.len(), report.dropped_close), (2, 0), "a person's negative stays");
    let scored = RawData::from_scored([("q", vec!["a 1", "b 2"], vec![0.5, 0.25])]).unwrap();
    let teacher = ByNumber::default();
    let (set, _) = taught(scored, &none, &teacher, None).unwrap();
    assert_eq!(set.examples[0].scores, Some(vec![0.5, 0.25]));
    assert_eq!(teacher.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn an_interrupted_run_goes_on_where_it_was_and_another_one_asks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let open = || ScoreCache::open(folder.path(), "numbers").unwrap();
    let killed = ByNumber { fails_after: Some(300), ..ByNumber::default() };
    let cache = open();
    let error = taught(raw(100), &options(|_| ()), &killed, Some(&cache)).unwrap_err();
    assert_eq!(error.to_string(), "teacher numbers: killed");
    drop(cache);
    let kept = open().len();
    assert_eq!(kept, 512, "two blocks of 256");

    let teacher = ByNumber::default();
    let (set, report) = taught(raw(100), &options(|_| ()), &teacher, Some(&open())).unwrap();
    assert_eq!(teacher.asked.load(Ordering::SeqCst), 1100 - kept);
    assert_eq!((report.teacher_pairs, report.teacher_known), (1100, kept));
    assert_own_scores(&set);
    let uninterrupted = taught(raw(100), &options(|_| ()), &ByNumber::default(), None).unwrap().0;
    assert_eq!(set.examples, uninterrupted.examples);

    let idle = ByNumber::default();
    assert_eq!(taught(raw(100), &options(|_| ()), &idle, Some(&open())).unwrap().0.examples, set.examples);
    assert_eq!(idle.asked.load(Ordering::SeqCst), 0);
}

/// 1,100 pairs in five blocks, of 140 documents: one that two blocks share is met twice.
#[test]
fn a_teacher_is_asked_document_by_document() {
    let teacher = ByNumber::default();
    taught(raw(100), &options(|_| ()), &teacher, None).unwrap();
    let changes = teacher.changes.load(Ordering::SeqCst);
    assert!((140..=144).contains(&changes), "{changes}");
}

#[test]
fn progress_counts_pairs_those_of_earlier_runs_included() {
    let heard = std::sync::Mutex::new(Vec::new());
    let hear = |phase, done, of| heard.lock().unwrap().push((phase, done, of));
    let teacher = ByNumber::default();
    let teaching = Teaching { teacher: &teacher, cache: None, exchange: None };
    prepare_with_teacher(raw(50), &options(|_| ()), None, Some(teaching), &hear).unwrap();
    let heard = heard.into_inner().unwrap();
    assert_eq!(heard[0], (MiningPhase::Teaching, 0, 550));
    assert_eq!(heard.last(), Some(&(MiningPhase::Teaching, 550, 550)));
}

#[test]
fn a_teacher_that_breaks_its_contract_is_named() {
    for (always, words) in [(vec![1.0], "a score for each of"), (vec![f32::NAN; 256], "a finite score")] {
        let teacher = ByNumber { always: Some(always), ..ByNumber::default() };
        let error = taught(raw(50), &options(|_| ()), &teacher, None).unwrap_err().to_string();
        assert!(error.contains("teacher numbers") && error.contains(words), "{error}");
    }
    let named = options(|negatives| negatives.teacher = Some("teacher".into()));
    let error = prepare(raw(2), &named, None).unwrap_err().to_string();
    assert!(error.contains("negatives.teacher"), "a teacher that is named and not handed over: {error}");
}

#[test]
fn rows_with_scores_are_written_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/scored.jsonl");
    let mut options = options(|_| ());
    options.nway = 4;
    let (set, _) = taught(raw(6), &options, &ByNumber::default(), None).unwrap();
    export_scored(&set, &path).unwrap();
    let read = read_training_data(&path, &ReadOptions::default()).unwrap();
    let (again, _) = prepare(read, &options, None).unwrap();
    let rows = |set: &TrainingSet| -> Vec<(String, Vec<String>, Option<Vec<f32>>)> {
        let text = |pid: &u32| set.collection.text(*pid).to_owned();
        let rows = set.examples.iter().map(|example| {
            let documents = example.documents.iter().map(text).collect();
            (set.queries.text(example.query).to_owned(), documents, example.scores.clone())
        });
        rows.collect()
    };
    assert_eq!(rows(&again), rows(&set));
}
