//! Mining and a teacher's scores by several processes, here threads: the same bits as by one.

use std::sync::{Arc, Mutex};

use burn::module::AutodiffModule;
use colbert_config::TrainOptions;
use colbert_data::{
    Bm25Miner, DataError, MiningPhase, NegativeMiner, PrepareOptions, PrepareReport, RawData, ScoreCache,
    ScoreExchange, Teacher, Teaching, TrainingSet, prepare_with_teacher,
};
use colbert_train::Processes;
use colbert_train::mining::{ColbertTeacher, DenseMiner, LateInteractionMiner, SharedMiner, SharedScores};
use tempfile::TempDir;

use crate::processes::{Member, together};
use crate::run::options;
use crate::support::{Inner, device, lines, parity, tiny, training_set};

/// Miners that share texts among processes rank as they do alone, to the last bit of each score.
#[test]
fn shared_miners_rank_as_one_process_does() {
    let set = training_set(&lines("triples.jsonl")[..34]);
    let settings = TrainOptions { accumsteps: 1, ..options() };
    let sentences = parity("tiny");
    let rank = |miner: &dyn NegativeMiner| miner.rank(&set.queries, &set.collection, 7, &|_, _, _| ()).unwrap();
    let bm25 = || -> Arc<dyn NegativeMiner> { Arc::new(Bm25Miner::new("en")) };
    let dense = || DenseMiner::<Inner>::read(&sentences, None, None, &device()).unwrap();
    let late = |candidates| {
        let (model, tokenizer) = tiny(&settings, None);
        LateInteractionMiner::new(model.valid(), tokenizer, candidates, &device())
    };
    let alone = [rank(&*bm25()), rank(&dense()), rank(&late(bm25()))];
    assert!(alone.iter().all(|rankings| rankings.iter().any(|ranking| ranking.len() == 7)), "{alone:?}");
    for size in [2, 3] {
        let found = together(size, |member| {
            let own: Arc<dyn Processes> = Arc::new(member.clone());
            let shared = || -> Arc<dyn NegativeMiner> { Arc::new(SharedMiner::new(bm25(), Arc::clone(&own))) };
            let late = late(shared()).with_processes(Arc::clone(&own));
            [rank(&*shared()), rank(&dense().with_processes(Arc::clone(&own))), rank(&late)]
        });
        for rankings in found {
            assert_eq!(rankings, alone, "{size}");
        }
    }
}

/// Texts with a word of their own each, so that candidates are many.
fn taught_data() -> RawData {
    let pairs = (0..80).map(|number| (format!("what is thing {number}"), format!("thing {number} is a hill")));
    RawData::from_pairs(pairs).unwrap()
}

/// A teacher that keeps the pairs of each call.
#[derive(Debug)]
struct Listening<'a> {
    teacher: &'a dyn Teacher,
    calls: Mutex<Vec<Vec<(String, String)>>>,
}

impl Teacher for Listening<'_> {
    fn name(&self) -> String {
        self.teacher.name()
    }

    fn fingerprint(&self) -> String {
        self.teacher.fingerprint()
    }

    fn scores(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, DataError> {
        let owned = pairs.iter().map(|(query, document)| ((*query).to_owned(), (*document).to_owned())).collect();
        self.calls.lock().unwrap().push(owned);
        self.teacher.scores(pairs)
    }
}

/// Calls of a teacher, and the examples with their scores that came of it.
type Taught = (Vec<Vec<(String, String)>>, TrainingSet, PrepareReport, Vec<usize>);

fn taught(cache: Option<&ScoreCache>, processes: Option<&Member>) -> Taught {
    let (model, tokenizer) = tiny(&options(), None);
    let teacher = ColbertTeacher::new(model.valid(), tokenizer, "tiny", "tiny".to_owned(), &device());
    let listening = Listening { teacher: &teacher, calls: Mutex::default() };
    let shared = processes.map(|member| SharedScores::new(Arc::new(member.clone())));
    let exchange = shared.as_ref().map(|shared| shared as &dyn ScoreExchange);
    let teaching = Teaching { teacher: &listening, cache, exchange };
    let heard = Mutex::new(Vec::new());
    let hear = |phase, done, _| {
        if phase == MiningPhase::Teaching {
            heard.lock().unwrap().push(done);
        }
    };
    let (set, report) =
        prepare_with_teacher(taught_data(), &PrepareOptions::default(), None, Some(teaching), &hear).unwrap();
    (listening.calls.into_inner().unwrap(), set, report, heard.into_inner().unwrap())
}

/// A teacher's calls are those of one process, dealt out in turn; the scores have the same bits, and the first process
/// alone keeps them for later runs.
#[test]
fn a_teacher_that_is_shared_scores_as_in_one_process() {
    let (calls, alone, report, heard) = taught(None, None);
    assert!(calls.len() > 3 && calls.last().unwrap().len() < 256, "rounds that some processes sit out: {calls:?}");
    assert!(alone.examples.iter().all(|example| example.scores.is_some()));
    for size in [2, 3] {
        let folder = TempDir::new().unwrap();
        let open = |rank: usize| (rank == 0).then(|| ScoreCache::open(folder.path(), "tiny").unwrap());
        let found = together(size, |member| taught(open(member.rank()).as_ref(), Some(member)));
        for (rank, (own, set, own_report, own_heard)) in found.into_iter().enumerate() {
            assert!(own.iter().eq(calls.iter().skip(rank).step_by(size)), "calls of process {rank} of {size}");
            assert_eq!(set.examples, alone.examples, "process {rank} of {size}");
            assert_eq!((&own_report, own_heard.last()), (&report, heard.last()));
        }
        // All of it is known now, to the first process only.
        let again = together(size, |member| taught(open(member.rank()).as_ref(), Some(member)));
        for (own, set, own_report, _) in again {
            assert_eq!((own.len(), own_report.teacher_known), (0, report.teacher_pairs));
            assert_eq!(set.examples, alone.examples);
        }
        // A part of it, too.
        let path = folder.path().join("tiny.scores");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 20 * 300]).unwrap();
        let part = together(size, |member| taught(open(member.rank()).as_ref(), Some(member)));
        assert_eq!(part.iter().map(|taught| taught.0.concat().len()).sum::<usize>(), 300);
        assert!(part.iter().all(|taught| taught.1.examples == alone.examples));
    }
}
