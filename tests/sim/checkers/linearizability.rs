//! Is there one order of all operations that explains what every client saw?
//!
//! The search of Wing and Gong with the improvements of Lowe: the calls and
//! returns that are still to be explained form a linked list, any operation
//! called before its first return may be the next, and what was tried once (the
//! set of operations in the order so far, and the state) is not tried again.
//! Keys are independent, so each is searched alone.
//!
//! An operation whose outcome is unknown (an *open* one) may take effect at any
//! time after its call, or never. Thirty of them would make 2^30 sets, so the
//! search looks only for the *least* of all orders that explain a history. Orders
//! are compared by, one after the other:
//!
//! 1. the number of open operations in it,
//! 2. the number of pairs of an open operation and a completed one after it,
//! 3. the sequence of its open operations, by their numbers,
//! 4. the sum of the positions of its reads, and
//! 5. the sequence of its reads, by their numbers.
//!
//! If any order explains a history, a least one does. So whoever leaves out only
//! what cannot be the beginning of a least order leaves out no verdict; that is
//! the proof owed by each rule below, and why they may be used together.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// What a key holds; unique per write, or else the search may be hard.
pub type Value = u64;

/// `None`: the key is absent.
type State = Option<Value>;

/// How many operations may be tried per key before the search gives up.
const STEPS: u64 = 500_000;

/// One operation on one key, as its client saw it. Times are numbers of an
/// order: an operation precedes another if it returned before that was called.
#[derive(Debug, Clone)]
pub struct Operation {
    pub client: u64,
    pub called_at: u64,
    /// None: it may take effect at any later time, or never.
    pub returned_at: Option<u64>,
    pub action: Action,
}

/// What was asked and answered; an outcome of `None` is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Get {
        found: Option<Value>,
    },
    Set {
        value: Value,
    },
    Delete {
        existed: Option<bool>,
    },
    CompareAndSet {
        expected: Option<Value>,
        value: Value,
        outcome: Option<bool>,
    },
    /// Absent counts as 0.
    Increment {
        by: i64,
        result: Option<i64>,
    },
}

/// What clients did, key by key.
#[derive(Debug, Default)]
pub struct History {
    operations: BTreeMap<String, Vec<Operation>>,
}

/// Why a history does not pass.
#[derive(Debug)]
pub enum Failure {
    /// No order explains it.
    NotLinearizable(String),
    /// The search ended before it knew.
    TooHard(String),
}

impl History {
    /// Adds an operation, in any order.
    pub fn record(&mut self, key: &str, operation: Operation) {
        let Operation { called_at, returned_at, .. } = operation;
        assert!(returned_at.is_none_or(|at| called_at <= at), "returned before its call");
        self.operations.entry(key.to_owned()).or_default().push(operation);
    }
}

/// Whether every key has an order that explains it; if not, the shortest beginning
/// of its history that has none.
pub fn check(history: &History) -> Result<(), String> {
    check_within(history, STEPS).map_err(|failure| failure.to_string())
}

/// The same, with at most so many operations tried per key.
pub fn check_within(history: &History, steps: u64) -> Result<(), Failure> {
    history.operations.iter().try_for_each(|(key, operations)| check_key(key, operations, steps))
}

fn check_key(key: &str, operations: &[Operation], steps: u64) -> Result<(), Failure> {
    match Search::new(operations).run(steps) {
        Verdict::Explained => Ok(()),
        Verdict::Unexplained => {
            Err(Failure::NotLinearizable(format!("key {key}: {}", explain(operations, steps))))
        }
        Verdict::TooHard => Err(Failure::TooHard(format!(
            "key {key}: too hard: {} operations, no verdict after {steps} steps",
            operations.len()
        ))),
    }
}

/// Tells the shortest beginning that has no order. Whatever extends an inexplicable
/// beginning is inexplicable, so halving finds it.
fn explain(operations: &[Operation], steps: u64) -> String {
    let mut returns: Vec<u64> = operations.iter().filter_map(|o| o.returned_at).collect();
    returns.sort_unstable();
    let explained = returns.partition_point(|&until| {
        // What is too hard is not told of: a longer beginning is.
        !matches!(Search::new(&beginning(operations, until)).run(steps), Verdict::Unexplained)
    });
    let until = returns.get(explained).copied().unwrap_or(u64::MAX);
    let mut search = Search::new(&beginning(operations, until));
    search.run(steps);
    search.story()
}

/// What had happened when the clock showed `until`; outcomes after that are unknown.
fn beginning(operations: &[Operation], until: u64) -> Vec<Operation> {
    let called = operations.iter().filter(|o| o.called_at <= until).cloned();
    called
        .map(|operation| match operation.returned_at {
            Some(at) if at <= until => operation,
            _ => Operation {
                returned_at: None,
                action: operation.action.with_unknown_outcome(),
                ..operation
            },
        })
        .collect()
}

impl Action {
    /// The state after it, or `None` if it would have had another outcome.
    fn apply(&self, state: State) -> Option<State> {
        let told = |outcome: Option<bool>, truth| outcome.is_none_or(|outcome| outcome == truth);
        match *self {
            Self::Get { found } => (found == state).then_some(state),
            Self::Set { value } => Some(Some(value)),
            Self::Delete { existed } => told(existed, state.is_some()).then_some(None),
            Self::CompareAndSet { expected, value, outcome } => {
                let equal = state == expected;
                told(outcome, equal).then_some(if equal { Some(value) } else { state })
            }
            Self::Increment { by, result } => {
                let sum = state.unwrap_or(0).cast_signed().wrapping_add(by);
                let agrees = result.is_none_or(|result| result == sum);
                agrees.then_some(Some(sum.cast_unsigned()))
            }
        }
    }

    fn with_unknown_outcome(self) -> Self {
        match self {
            Self::Get { .. } | Self::Set { .. } => self,
            Self::Delete { .. } => Self::Delete { existed: None },
            Self::CompareAndSet { expected, value, .. } => {
                Self::CompareAndSet { expected, value, outcome: None }
            }
            Self::Increment { by, .. } => Self::Increment { by, result: None },
        }
    }

    /// It changes nothing, whatever the state.
    fn is_read(&self) -> bool {
        matches!(
            self,
            Self::Get { .. }
                | Self::Delete { existed: Some(false) }
                | Self::CompareAndSet { outcome: Some(false), .. }
        )
    }

    /// The value it can write, and no other.
    fn written(&self) -> Option<Value> {
        match *self {
            Self::Set { value } | Self::CompareAndSet { value, .. } => Some(value),
            _ => None,
        }
    }

    fn write_instead(&mut self, other: Value) {
        if let Self::Set { value } | Self::CompareAndSet { value, .. } = self {
            *value = other;
        }
    }

    /// The value it compares the state with.
    fn mentioned(&self) -> Option<Value> {
        match *self {
            Self::Get { found } => found,
            Self::CompareAndSet { expected, .. } => expected,
            _ => None,
        }
    }

    /// The value that must have been there, if it took effect as told.
    fn claimed(&self) -> Option<Value> {
        match *self {
            Self::Get { found } => found,
            Self::CompareAndSet { expected, outcome: Some(true), .. } => expected,
            _ => None,
        }
    }
}

/// Makes all values one that no operation compares with. A state matters only by
/// what it is compared with and whether it is there, so this changes no verdict;
/// it makes equal what differs in nothing. Not where sums are made of values.
fn blur(operations: &mut [Operation]) {
    if has_sums(operations) {
        return;
    }
    let mut mentioned: Vec<Value> =
        operations.iter().filter_map(|o| o.action.mentioned()).collect();
    mentioned.sort_unstable();
    let is_unseen = |value: Value| mentioned.binary_search(&value).is_err();
    let unseen = |action: &Action| action.written().filter(|&value| is_unseen(value));
    let Some(one) = operations.iter().find_map(|o| unseen(&o.action)) else { return };
    let actions = operations.iter_mut().map(|o| &mut o.action);
    actions.filter(|action| unseen(action).is_some()).for_each(|action| action.write_instead(one));
}

fn has_sums(operations: &[Operation]) -> bool {
    operations.iter().any(|o| matches!(o.action, Action::Increment { .. }))
}

/// How one search ended.
enum Verdict {
    Explained,
    Unexplained,
    TooHard,
}

/// How many operations that are not in the order need a value, and how many may
/// bring it about.
struct Demand {
    wanted: usize,
    sources: usize,
}

struct Demands {
    of: BTreeMap<Value, Demand>,
    /// 1 if there are sums: they may bring about any value.
    sums: usize,
}

/// One operation of the order so far.
struct Taken {
    operation: usize,
    /// The state before it.
    before: State,
    /// How many choices were left to those before it.
    choices: usize,
}

/// What decides all that may follow; the last operation counts if it is open.
#[derive(PartialEq, Eq, Hash)]
struct Node {
    state: State,
    open: Option<(usize, State)>,
    /// How many leading words of the set are full.
    full: usize,
    set: Box<[u64]>,
}

/// The search for an order. Operations are numbered by their calls, all completed
/// ones before all open ones.
struct Search {
    /// As they are told of.
    told: Vec<Operation>,
    /// As they are searched.
    operations: Vec<Operation>,
    completed: usize,
    /// Of each open operation, the one before it that does the same.
    alike: Vec<Option<usize>>,
    demands: Demands,
    events: Events,
    state: State,
    set: Vec<u64>,
    taken: Vec<Taken>,
    /// What else may be tried, at each of those taken.
    choices: Vec<usize>,
    seen: HashSet<Node>,
    furthest: Vec<usize>,
}

impl Search {
    fn new(operations: &[Operation]) -> Self {
        let is_idle = |o: &Operation| o.returned_at.is_none() && o.action.is_read();
        let mut told: Vec<Operation> = operations.iter().filter(|o| !is_idle(o)).cloned().collect();
        told.sort_by_key(|o| (o.returned_at.is_none(), o.called_at));
        let mut operations = told.clone();
        blur(&mut operations);
        let completed = operations.partition_point(|o| o.returned_at.is_some());
        Self {
            completed,
            alike: alike(&operations[completed..], completed),
            demands: Demands::new(&operations),
            events: Events::new(&operations[..completed]),
            state: None,
            set: vec![0; operations.len().div_ceil(64)],
            taken: Vec::new(),
            choices: Vec::new(),
            seen: HashSet::new(),
            furthest: Vec::new(),
            told,
            operations,
        }
    }

    fn run(&mut self, steps: u64) -> Verdict {
        self.choose();
        for _ in 0..steps {
            if self.events.is_empty() {
                return Verdict::Explained;
            }
            while self.choices.len() == self.taken.last().map_or(0, |taken| taken.choices) {
                if self.taken.is_empty() {
                    return Verdict::Unexplained;
                }
                self.give_back();
            }
            let next = self.choices.pop().expect("more than those before it had");
            self.take(next);
            if !self.is_dead_end() && self.seen.insert(self.node()) {
                self.choose();
            }
        }
        Verdict::TooHard
    }

    fn action(&self, operation: usize) -> Action {
        self.operations[operation].action
    }

    fn is_open(&self, operation: usize) -> bool {
        operation >= self.completed
    }

    fn is_taken(&self, operation: usize) -> bool {
        self.set[operation / 64] & (1 << (operation % 64)) != 0
    }

    fn take(&mut self, operation: usize) {
        let after = self.action(operation).apply(self.state).expect("a choice is possible");
        let choices = self.choices.len();
        self.taken.push(Taken { operation, before: self.state, choices });
        self.state = after;
        self.set[operation / 64] |= 1 << (operation % 64);
        self.demands.count(&self.operations[operation], |count| *count -= 1);
        if !self.is_open(operation) {
            self.events.lift(operation);
        }
    }

    fn give_back(&mut self) {
        if self.taken.len() > self.furthest.len() {
            self.furthest = self.taken.iter().map(|taken| taken.operation).collect();
        }
        let Taken { operation, before, .. } = self.taken.pop().expect("something was taken");
        self.state = before;
        self.set[operation / 64] &= !(1 << (operation % 64));
        self.demands.count(&self.operations[operation], |count| *count += 1);
        if !self.is_open(operation) {
            self.events.put_back(operation);
        }
    }

    /// A value is gone that is still needed, and nobody is left to bring it back.
    fn is_dead_end(&self) -> bool {
        let before = self.taken.last().and_then(|taken| taken.before);
        before.is_some_and(|gone| before != self.state && self.demands.misses(gone))
    }

    fn node(&self) -> Node {
        let full = self.set.iter().take_while(|&&word| word == u64::MAX).count();
        let last = self.taken.last().filter(|taken| self.is_open(taken.operation));
        Node {
            state: self.state,
            open: last.map(|taken| (taken.operation, taken.before)),
            full,
            set: self.set[full..].into(),
        }
    }

    /// Adds what may come next, the most promising last.
    fn choose(&mut self) {
        let (called, first_return) = self.events.called();
        // A read that finds what it found can come at once: it disturbs nobody, and
        // moving it to here makes an order less (4, or 5 among reads).
        let is_due = |&&o: &&usize| self.action(o).is_read() && self.is_possible(o);
        if let Some(&read) = called.iter().find(is_due) {
            self.choices.push(read);
            return;
        }
        let open = self.operations[self.completed..].iter();
        let opened = open.take_while(|o| o.called_at <= first_return).count();
        let all = called.into_iter().chain(self.completed..self.completed + opened);
        let choices: Vec<usize> = all.filter(|&o| self.is_possible(o)).collect();
        self.choices.extend(choices.into_iter().rev());
    }

    fn is_possible(&self, operation: usize) -> bool {
        let Some(after) = self.action(operation).apply(self.state) else { return false };
        let is_of_use = !self.is_open(operation) || self.opens_well(operation, after);
        is_of_use && !self.goes_before_last(operation, after)
    }

    /// An open operation without effect could be left out, which is less (1). One that
    /// has a twin with a lower number can change places with it, or be replaced by
    /// it: the twin was called earlier, and both may come as late as they like. That
    /// is less (3; 1 and 2 stay).
    fn opens_well(&self, operation: usize, after: State) -> bool {
        let twin = self.alike[operation - self.completed];
        !self.is_taken(operation) && after != self.state && twin.is_none_or(|o| self.is_taken(o))
    }

    /// The last one taken is open and not needed for what comes now: without it, or
    /// with both exchanged, the state is the same. Leaving it out is less (1). The
    /// exchange is possible, since an open operation may always come later, and less
    /// (2, or 3 if both are open and this one has the lower number).
    fn goes_before_last(&self, operation: usize, after: State) -> bool {
        let Some(last) = self.taken.last().filter(|taken| self.is_open(taken.operation)) else {
            return false;
        };
        let Some(alone) = self.action(operation).apply(last.before) else { return false };
        let is_less = !self.is_open(operation) || operation < last.operation;
        alone == after || (is_less && self.action(last.operation).apply(alone) == Some(after))
    }

    /// What there was to explain, and how far it went.
    fn story(&self) -> String {
        let mut lines: Vec<(u64, String)> = Vec::new();
        for (number, operation) in self.told.iter().enumerate() {
            let when = operation.returned_at.unwrap_or(u64::MAX);
            lines.push((when, format!("  #{number} {operation}\n")));
        }
        lines.sort_by_key(|&(when, _)| when);
        let lines: String = lines.into_iter().map(|(_, line)| line).collect();
        let order: Vec<String> = self.furthest.iter().map(|o| format!("#{o}")).collect();
        let state =
            self.furthest.iter().try_fold(None, |state, &o| self.told[o].action.apply(state));
        let state = state.map_or_else(|| "?".to_owned(), show);
        let order = order.join(" ");
        format!("no order explains\n{lines}the furthest order: {order}; it leaves {state}")
    }
}

/// Of each, the nearest one before it that does the same; numbers begin at `first`.
fn alike(open: &[Operation], first: usize) -> Vec<Option<usize>> {
    let twin = |i: usize| open[..i].iter().rposition(|o| o.action == open[i].action);
    (0..open.len()).map(|i| twin(i).map(|twin| twin + first)).collect()
}

impl Demands {
    fn new(operations: &[Operation]) -> Self {
        let sums = usize::from(has_sums(operations));
        let mut demands = Self { of: BTreeMap::new(), sums };
        operations.iter().for_each(|o| demands.count(o, |count| *count += 1));
        demands
    }

    /// Changes the counts of the values that an operation needs or brings about.
    fn count(&mut self, operation: &Operation, change: impl Fn(&mut usize)) {
        let Operation { returned_at, action, .. } = operation;
        if let Some(value) = action.claimed().filter(|_| returned_at.is_some()) {
            change(&mut self.of(value).wanted);
        }
        if let Some(value) = action.written() {
            change(&mut self.of(value).sources);
        }
    }

    fn of(&mut self, value: Value) -> &mut Demand {
        self.of.entry(value).or_insert(Demand { wanted: 0, sources: self.sums })
    }

    /// Once gone it does not come back, and somebody needs it.
    fn misses(&self, gone: Value) -> bool {
        self.of.get(&gone).is_some_and(|demand| demand.wanted > 0 && demand.sources == 0)
    }
}

/// The calls and returns of completed operations that are not in the order yet, by
/// time: a circular list through an entry of no operation.
struct Events {
    /// When it happened.
    at: Vec<u64>,
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Events {
    const HEAD: usize = 0;

    fn call(operation: usize) -> usize {
        2 * operation + 1
    }

    fn new(completed: &[Operation]) -> Self {
        let times = completed.iter().flat_map(|o| [o.called_at, o.returned_at.unwrap_or(u64::MAX)]);
        let at: Vec<u64> = std::iter::once(0).chain(times).collect();
        let mut order: Vec<usize> = (1..at.len()).collect();
        // Calls are odd. At the same time they come first: then neither precedes.
        order.sort_by_key(|&entry| (at[entry], entry % 2 == 0));
        let (mut next, mut previous) = (vec![Self::HEAD; at.len()], vec![Self::HEAD; at.len()]);
        let mut last = Self::HEAD;
        for entry in order {
            (next[last], previous[entry]) = (entry, last);
            last = entry;
        }
        previous[Self::HEAD] = last;
        Self { at, next, previous }
    }

    fn is_empty(&self) -> bool {
        self.next[Self::HEAD] == Self::HEAD
    }

    /// Who was called before the first return, and when that is.
    fn called(&self) -> (Vec<usize>, u64) {
        let mut called = Vec::new();
        let mut entry = self.next[Self::HEAD];
        while entry % 2 == 1 {
            called.push(entry / 2);
            entry = self.next[entry];
        }
        (called, self.at[entry])
    }

    fn lift(&mut self, operation: usize) {
        for entry in [Self::call(operation), Self::call(operation) + 1] {
            let (next, previous) = (self.next[entry], self.previous[entry]);
            (self.next[previous], self.previous[next]) = (next, previous);
        }
    }

    /// The opposite of `lift`; what was lifted last comes back first.
    fn put_back(&mut self, operation: usize) {
        for entry in [Self::call(operation) + 1, Self::call(operation)] {
            let (next, previous) = (self.next[entry], self.previous[entry]);
            (self.next[previous], self.previous[next]) = (entry, entry);
        }
    }
}

fn show(value: Option<Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let returned = self.returned_at.map_or_else(|| "?".to_owned(), |at| at.to_string());
        let Self { client, called_at, action, .. } = self;
        write!(f, "{called_at}..{returned} client {client}: {action}")
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told =
            |outcome: Option<bool>| outcome.map_or("?", |yes| if yes { "yes" } else { "no" });
        match *self {
            Self::Get { found } => write!(f, "get -> {}", show(found)),
            Self::Set { value } => write!(f, "set {value}"),
            Self::Delete { existed } => write!(f, "delete -> {}", told(existed)),
            Self::CompareAndSet { expected, value, outcome } => {
                write!(f, "set {value} if {} -> {}", show(expected), told(outcome))
            }
            Self::Increment { by, result } => {
                let result = result.map_or_else(|| "?".to_owned(), |sum| sum.to_string());
                write!(f, "add {by} -> {result}")
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NotLinearizable(why) | Self::TooHard(why)) = self;
        f.write_str(why)
    }
}
