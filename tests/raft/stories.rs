//! Runs the scripts. Each line of a script is a command to the cluster; what
//! follows from it is written down beneath.
//!
//! | command | what it does |
//! |---|---|
//! | `cluster N [learners=K] [off=true] [tail= append= window= apply= lag= promise= reads=]` | machines 1 to N, with small limits; started unless `off` |
//! | `machine N term=T [vote=M] [commit=I] [TERM...]` | before its start: its disk holds entries of these terms |
//! | `start N...`, `crash N [kept=K]` | of the writes owed, the first K reach the disk |
//! | `forget N K` | while it is down: its disk goes back to its first K entries |
//! | `slow N...`, `disk N [count=K]`, `fast N...` | a slow disk does its writes when told to; other disks at once |
//! | `slow-journal N`, `journal N` | the same for what is read back from the journal |
//! | `pass MS [N...]` | clocks run on, and nobody looks at them yet |
//! | `turn N...`, `wake N` | a node looks at its clock; `wake`: once it next has something to do |
//! | `run MS [step=10]` | everything runs by itself for a while; only events are written down |
//! | `deliver [from= to= kind= nth= batch=true]`, `settle` | what is in flight arrives; `settle`: until nothing is |
//! | `drop [...]`, `double [...]`, `last-first [...]` | the network at its worst, for the same selection |
//! | `cut A B`, `cut-way A B`, `heal` | the link from A to B (and back) |
//! | `propose N TEXT...`, `read N [count=K]`, `transfer N TO`, `link-lost N TO` | what clients and operators want |
//! | `change N [add= promote= remove=] [force=true]` | one change of the members |
//! | `compact N [at=I]`, `ended N TO` | takes a snapshot; tells that one is no longer on its way |
//! | `status [N...]`, `logs`, `flight` | how things stand |

use std::time::Duration;

use bytes::Bytes;
use goldenscript::{Command, Context, Runner};
use raftcache::raft::{Change, Entry, EntryId, HardState, Index, NodeId, Payload, Term};

use super::arguments::{Args, settings};
use super::disk::Disk;
use super::harness::{Packet, founding, member, n};
use super::notebook::{Outcome, Story};
use super::trace::{self, Standing};

impl Story {
    fn found(&mut self, args: &Args) -> Outcome {
        let count = u128::from(args.plain_number(0)?);
        let learners = u128::from(args.number("learners")?.unwrap_or(0));
        let voters: Vec<NodeId> = (1..=count - learners).map(n).collect();
        let newcomers: Vec<NodeId> = (count - learners + 1..=count).map(n).collect();
        let founding = founding(&voters, &newcomers);
        for id in (1..=count).map(n) {
            let config = settings(id, args)?;
            self.cluster.add(config, Disk::new(founding.clone()));
        }
        if args.key("off").is_none() {
            (1..=count).for_each(|id| self.cluster.start(n(id), 1));
        }
        Ok(())
    }

    fn machine(&mut self, args: &Args) -> Outcome {
        let id = args.node(0)?;
        let known = self.cluster.nodes.get(&id);
        let config = match known {
            Some(node) => node.config.clone(),
            None => settings(id, args)?,
        };
        let mut disk = known.map_or_else(|| Disk::new(founding(&[], &[])), |n| n.disk.clone());
        for (place, term) in args.plain[1..].iter().enumerate() {
            let id = EntryId::new(term.parse()?, place as u64 + 1);
            let payload = Payload::Command(Bytes::from(format!("{id}")));
            disk.entries.push(Entry { id, payload });
        }
        disk.hard_state = HardState {
            term: Term(args.number("term")?.unwrap_or(0)),
            vote: args.number("vote")?.map(|id| n(u128::from(id))),
            commit: Index(args.number("commit")?.unwrap_or(0)),
        };
        self.cluster.add(config, disk);
        Ok(())
    }

    fn run_for(&mut self, args: &Args) -> Outcome {
        let (length, step) = (args.plain_number(0)?, args.number("step")?.unwrap_or(10));
        self.only_events = true;
        for _ in 0..length / step {
            for id in self.cluster.nodes.keys().copied().collect::<Vec<_>>() {
                self.cluster.pass(id, Duration::from_millis(step));
            }
            for id in self.cluster.up() {
                self.step(id, |_| ());
            }
            self.settle()?;
        }
        self.only_events = false;
        Ok(())
    }

    fn change(&mut self, args: &Args) -> Outcome {
        let leader = args.node(0)?;
        let of =
            |key| -> Outcome<Option<NodeId>> { Ok(args.number(key)?.map(|id| n(u128::from(id)))) };
        let change = if let Some(id) = of("add")? {
            Change::AddLearner(id, member(id, false))
        } else if let Some(id) = of("promote")? {
            Change::Promote(id)
        } else {
            Change::Remove(of("remove")?.ok_or("add, promote or remove whom?")?)
        };
        let force = args.key("force").is_some();
        let said = self.step(leader, |cluster| {
            let now = cluster.nodes[&leader].clock;
            cluster.raft(leader).change_membership(now, &change, force)
        });
        said.map(|_| ()).map_err(Into::into)
    }

    fn clients(&mut self, name: &str, args: &Args) -> Outcome {
        let id = args.node(0)?;
        match name {
            "propose" => {
                let texts = args.plain[1..].to_vec();
                self.step(id, |cluster| {
                    let raft = cluster.raft(id);
                    texts.into_iter().try_for_each(|text| raft.propose(text.into()).map(|_| ()))
                })?;
            }
            "read" => {
                for _ in 0..args.number("count")?.unwrap_or(1) {
                    let read = self.cluster.read(id);
                    let name = self.reads.name(id, read);
                    self.say(format!("{id} is asked {name}"));
                }
                self.step(id, |_| ());
            }
            "transfer" => {
                let to = args.node(1)?;
                let begun = self.step(id, |cluster| {
                    let now = cluster.nodes[&id].clock;
                    cluster.raft(id).transfer_leadership(now, to)
                });
                if !begun {
                    return Err("refused".into());
                }
            }
            "link-lost" => {
                let to = args.node(1)?;
                self.step(id, |cluster| cluster.raft(id).link_lost(to));
            }
            _ => {
                let to = args.node(1)?;
                self.step(id, |cluster| cluster.raft(id).snapshot_ended(to));
            }
        }
        Ok(())
    }

    fn machines(&mut self, name: &str, args: &Args) -> Outcome {
        match name {
            "start" => {
                for id in args.nodes(0, Vec::new())? {
                    self.cluster.start(id, 1);
                    self.step(id, |_| ());
                }
            }
            "crash" => {
                let kept = usize::try_from(args.number("kept")?.unwrap_or(0))?;
                self.cluster.crash(args.node(0)?, kept);
            }
            "forget" => {
                let kept = usize::try_from(args.plain_number(1)?)?;
                let disk = &mut self.cluster.node(args.node(0)?).disk;
                disk.entries.truncate(kept);
                disk.hard_state.commit = disk.hard_state.commit.min(disk.last().index);
            }
            "slow" => self.slow.extend(args.nodes(0, Vec::new())?),
            "slow-journal" => self.slow_journal.extend(args.nodes(0, Vec::new())?),
            "fast" => {
                for id in args.nodes(0, Vec::new())? {
                    self.slow.remove(&id);
                    while self.cluster.is_up(id)
                        && self.step(id, |cluster| cluster.complete_write(id))
                    {}
                }
            }
            "disk" => {
                let id = args.node(0)?;
                for _ in 0..args.number("count")?.unwrap_or(1) {
                    let owed = self.cluster.nodes[&id].writes.front().ok_or("owes nothing")?;
                    let line = format!("{id} has on disk: {}", trace::write(owed));
                    self.say(line);
                    self.step(id, |cluster| cluster.complete_write(id));
                }
            }
            _ => {
                let id = args.node(0)?;
                let before = Standing::of(self.cluster.raft(id));
                if !self.hand_in(id) {
                    return Err("nothing was looked up".into());
                }
                self.take_turns(id, before);
            }
        }
        Ok(())
    }

    fn network(&mut self, name: &str, args: &Args) -> Outcome {
        match name {
            "deliver" => {
                let packets = self.select(args)?;
                let packets = self.take(&packets);
                self.deliver(packets, args.key("batch").is_some());
            }
            "drop" => {
                let packets = self.select(args)?;
                for packet in self.take(&packets) {
                    let line = trace::packet(&packet, &mut self.reads);
                    self.say(format!("{line} (lost)"));
                    self.lose(&packet);
                }
            }
            "double" => {
                let packets = self.select(args)?;
                let copies: Vec<Packet> = packets.iter().map(|&i| self.flight[i].clone()).collect();
                self.flight.extend(copies);
            }
            "last-first" => {
                let packets = self.select(args)?;
                let mut packets = self.take(&packets);
                packets.reverse();
                self.flight.extend(packets);
            }
            "cut" => {
                let (a, b) = (args.node(0)?, args.node(1)?);
                self.cut.extend([(a, b), (b, a)]);
            }
            "cut-way" => {
                self.cut.insert((args.node(0)?, args.node(1)?));
            }
            _ => self.cut.clear(),
        }
        Ok(())
    }

    fn time(&mut self, name: &str, args: &Args) -> Outcome {
        match name {
            "pass" => {
                let all = self.cluster.nodes.keys().copied().collect();
                let time = Duration::from_millis(args.plain_number(0)?);
                for id in args.nodes(1, all)? {
                    self.cluster.pass(id, time);
                }
            }
            "turn" => {
                for id in args.nodes(0, self.cluster.up())? {
                    self.step(id, |_| ());
                }
            }
            _ => {
                let id = args.node(0)?;
                let due = self.cluster.raft(id).wake_at();
                let node = self.cluster.node(id);
                node.clock = node.clock.max(due);
                self.step(id, |_| ());
            }
        }
        Ok(())
    }

    fn show(&mut self, name: &str, args: &Args) -> Outcome {
        match name {
            "status" => {
                for id in args.nodes(0, self.cluster.nodes.keys().copied().collect())? {
                    let line = match &self.cluster.nodes[&id].raft {
                        Some(raft) => trace::status(raft),
                        None => format!("{id}: down"),
                    };
                    self.say(line);
                }
            }
            "logs" => {
                for id in self.cluster.nodes.keys().copied().collect::<Vec<_>>() {
                    let terms = self.cluster.nodes[&id].log.terms();
                    let terms: Vec<String> = terms.iter().map(Term::to_string).collect();
                    let base = self.cluster.nodes[&id].log.snapshot.last;
                    self.say(format!("{id}: after {base}: {}", terms.join(" ")));
                }
            }
            _ => {
                for packet in self.flight.clone() {
                    let line = trace::packet(&packet, &mut self.reads);
                    self.say(line);
                }
            }
        }
        Ok(())
    }
}

impl Runner for Story {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Outcome<String> {
        let args = Args::of(command);
        let name = command.name.as_str();
        self.lines.clear();
        match name {
            "cluster" => self.found(&args)?,
            "machine" => self.machine(&args)?,
            "start" | "crash" | "forget" | "slow" | "fast" | "disk" | "slow-journal"
            | "journal" => {
                self.machines(name, &args)?;
            }
            "pass" | "turn" | "wake" => self.time(name, &args)?,
            "run" => self.run_for(&args)?,
            "settle" => self.settle()?,
            "deliver" | "drop" | "double" | "last-first" | "cut" | "cut-way" | "heal" => {
                self.network(name, &args)?;
            }
            "propose" | "read" | "transfer" | "link-lost" | "ended" => {
                self.clients(name, &args)?;
            }
            "change" => self.change(&args)?,
            "compact" => {
                let id = args.node(0)?;
                if !self.cluster.compact(id, args.number("at")?.map(Index)) {
                    return Err("nothing to compact".into());
                }
            }
            "status" | "logs" | "flight" => self.show(name, &args)?,
            _ => return Err(format!("unknown command {name}").into()),
        }
        Ok(self.lines.iter().map(|line| format!("{line}\n")).collect())
    }
}

/// Every script of the directory; a failure names the script.
#[test]
fn stories() {
    let only = std::env::var("STORY").ok();
    let mut paths: Vec<_> = std::fs::read_dir("tests/raft/scripts")
        .expect("the scripts are there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        if only.as_ref().is_none_or(|only| *only == name) {
            eprintln!("story: {name}");
            goldenscript::run(&mut Story::default(), &path).expect("a readable script");
        }
    }
}
