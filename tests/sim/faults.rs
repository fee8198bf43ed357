//! What goes wrong, and when it is well again.

use raftcache::replica::Ticket;
use raftcache::request::Request;
use raftcache::wal::faulty::Crash;
use rand::RngExt;

use super::node::{Machine, Moment};
use super::operator::OPERATOR;
use super::plan::{Fault, MS, SECOND, SLOWEST};
use super::world::{Event, World};

impl World {
    /// One thing goes wrong, and the next is on its way.
    pub fn fault(&mut self) {
        if !self.faulty {
            return;
        }
        let next = self.within((20 * MS, self.plan.fault_every_ms * MS));
        self.after(next, Event::Fault);
        let fault = self.plan.faults[self.chance.random_range(0..self.plan.faults.len())];
        let anybody = self.chance.random_range(0..self.machines.len());
        // Leaders are where it hurts.
        let victim = self.leader().filter(|_| self.chance.random_bool(0.5)).unwrap_or(anybody);
        self.trace.tell(self.now, || format!("{fault:?} n{}", victim + 1));
        self.trace.note(self.now, "fault", &[fault as u64, victim as u64]);
        // Faults that nobody is there to see prove nothing.
        if self.chance.random_bool(0.7) {
            self.stir(1500 * MS);
        }
        self.go_wrong(fault, victim);
    }

    fn go_wrong(&mut self, fault: Fault, victim: usize) {
        match fault {
            Fault::Crash => self.crash_somehow(victim),
            Fault::CrashAfterSpeaking => {
                let moments = [Moment::Vote, Moment::Acknowledgement, Moment::Reply];
                let which = self.chance.random_range(0..moments.len());
                self.doom(victim, moments[which]);
                // The longer its disk takes, the more it may have said too early.
                self.machines[victim].disk_factor = self.chance.random_range(1..50);
            }
            Fault::DeadlyElection => self.deadly_election(),
            Fault::Relay => self.relay(),
            Fault::Bounce => self.bounce(),
            Fault::HungLeader => {
                let stall = self.within((SECOND, 4 * SECOND));
                self.machines[victim].stalled_until = self.now + stall;
                self.cut_off(victim);
                self.doom(victim, Moment::Acknowledgement);
                let heal = self.within((300 * MS, 2 * SECOND));
                self.after(heal, Event::Reunite);
            }
            Fault::CrashAll => {
                self.trace.count("crashes of all");
                (0..self.machines.len()).for_each(|number| self.crash_somehow(number));
            }
            Fault::Isolate => {
                self.trace.count("isolations");
                self.cut_off(victim);
            }
            Fault::Split => {
                self.trace.count("splits");
                let side: u64 = self.chance.random();
                self.part(|a, b| (side >> a ^ side >> b) & 1 == 1);
            }
            Fault::Bridge => {
                self.trace.count("bridges");
                let side: u64 = self.chance.random();
                self.part(|a, b| a != victim && b != victim && (side >> a ^ side >> b) & 1 == 1);
            }
            Fault::OneWay => {
                self.trace.count("one-way cuts");
                let outwards = self.chance.random_bool(0.5);
                self.part(|a, b| if outwards { a == victim } else { b == victim });
            }
            Fault::SlowPeer => {
                self.trace.count("slow peers");
                self.machines[victim].network_factor = self.chance.random_range(2..=SLOWEST);
            }
            Fault::SlowDisk => {
                self.trace.count("slow disks");
                self.machines[victim].disk_factor = self.chance.random_range(2..100);
            }
            Fault::StalledDisk => {
                self.trace.count("stalled disks");
                let stall = self.within((100 * MS, 4 * SECOND));
                self.machines[victim].stalled_until = self.now + stall;
            }
            Fault::Laggard => self.lag(victim),
            Fault::FailedSync => {
                let machine = &self.machines[victim];
                if machine.process.is_some() {
                    machine.disk.fail_sync_after(self.chance.random_range(0..10));
                    self.judge.expect_failed_sync(victim);
                }
            }
            Fault::FullDisk => {
                self.trace.count("full disks");
                let machine = &self.machines[victim];
                let more = self.chance.random_range(0..self.plan.segment_bytes * 2);
                machine.disk.set_capacity(Some(machine.disk.used_bytes() + more));
            }
            Fault::Damage | Fault::EmptyDisk => self.lose_something(fault, victim, 30),
            Fault::WallJump => {
                self.trace.count("wall clock jumps");
                let hours = self.chance.random_range(-5 * 3_600_000..5 * 3_600_000);
                self.machines[victim].clock.jump(hours);
            }
            Fault::WallStuck => {
                self.trace.count("wall clocks stuck");
                self.machines[victim].clock.stick(self.now);
            }
            Fault::Pause => self.pause(victim),
            Fault::Echo => self.echo(),
            Fault::Twins => self.twins(),
            Fault::Schism => self.schism(),
            Fault::Revenant => self.revenant(),
            Fault::Dawdle => self.schemes.dawdles = true,
            Fault::Transfer => {
                self.trace.count("transfers asked for");
                let ticket = Ticket { connection: OPERATOR, number: self.tick() };
                let (machine, epoch) = (victim, self.machines[victim].epoch);
                let request = Box::new(Request::Transfer { to: None });
                self.after(1, Event::Request { machine, epoch, ticket, request });
            }
            Fault::Membership => self.change_members(),
            Fault::Readdress => self.move_machine(victim),
        }
    }

    /// As soon as nothing is lost with it that others do not hold.
    pub fn lose_something(&mut self, fault: Fault, victim: usize, tries: u32) {
        if self.can_lose(victim) {
            match fault {
                Fault::Damage => self.damage_at_rest(victim),
                _ => self.lose_disk(victim),
            }
        } else if tries > 0 && self.faulty {
            let tries = tries - 1;
            self.after(50 * MS, Event::Lose { machine: victim, fault, tries });
        }
    }

    fn doom(&mut self, victim: usize, moment: Moment) {
        if let Some(process) = &mut self.machines[victim].process {
            process.doomed = Some(moment);
        }
    }

    /// The moment has come.
    pub fn crash_at(&mut self, number: usize, moment: Moment) {
        match moment {
            Moment::Office | Moment::Commit => {
                self.trace.count("leaders that end as they begin");
                self.crash(number, Crash::Kept);
                let back = self.soon();
                self.after(back, Event::Start { machine: number });
                self.stir(SECOND);
            }
            _ => self.crash_after_speaking(number),
        }
    }

    /// It has said something, and nothing of what it had not synced is left.
    fn crash_after_speaking(&mut self, number: usize) {
        self.trace.count("crashes after speaking");
        let torn = Crash::Torn(self.chance.random());
        let crash = if self.chance.random_bool(0.6) { Crash::Lost } else { torn };
        self.crash(number, crash);
        let back = self.soon();
        self.after(back, Event::Start { machine: number });
        // Who remembers may be away when it comes back.
        let holds = |machine: &Machine| {
            machine.process.as_ref().map(|process| process.raft().durable_index())
        };
        let machines = 0..self.machines.len();
        let other = machines.max_by_key(|&other| holds(&self.machines[other])).unwrap_or(0);
        if self.chance.random_bool(0.6) {
            self.cut_off(other);
        }
        self.stir(SECOND);
    }

    /// Mostly at once, sometimes late.
    pub fn soon(&mut self) -> u64 {
        let longest = [10 * MS, 100 * MS, SECOND, 3 * SECOND];
        let longest = longest[self.chance.random_range(0..longest.len())];
        self.within((MS, longest))
    }

    /// The leader is gone, and whoever votes ends and comes back.
    fn deadly_election(&mut self) {
        self.trace.count("deadly elections");
        let leader = self.leader();
        for number in 0..self.machines.len() {
            if Some(number) == leader {
                self.crash_somehow(number);
            } else if self.chance.random_bool(0.7) {
                self.doom(number, Moment::Vote);
                self.machines[number].disk_factor = self.chance.random_range(1..100);
            }
        }
    }

    /// One leader after the other ends: as soon as it is elected, so that what it
    /// begins with is on its own disk only, or with the first thing it commits.
    fn relay(&mut self) {
        self.trace.count("relays");
        for number in 0..self.machines.len() {
            let moments = [Moment::Office, Moment::Commit];
            let which = self.chance.random_range(0..3);
            if let Some(&moment) = moments.get(which) {
                self.doom(number, moment);
            }
        }
        if let Some(leader) = self.leader().filter(|_| self.chance.random_bool(0.5)) {
            self.crash_somehow(leader);
        }
        self.stir(SECOND);
    }

    /// One node hears the leader no more. When it is about to stand for election
    /// the others are cut off from the leader, too, and may end and be back at
    /// once: do they remember to whom they had promised not to elect another?
    fn bounce(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.trace.count("bounces");
        let deaf = self.chance.random_range(0..self.machines.len());
        self.blocked.clear();
        self.part(|a, b| (a == leader && b == deaf) || (a == deaf && b == leader));
        let beat = self.plan.heartbeat_ms * MS;
        let delay = self.within((4 * beat, 12 * beat));
        // Nobody is elected who lacks what was written meanwhile.
        self.hush(delay);
        self.heals_from = self.now + delay + 12 * beat;
        self.after(delay, Event::Bounce { leader, deaf });
    }

    pub fn bounce_others(&mut self, leader: usize, deaf: usize) {
        if !self.faulty {
            return;
        }
        self.cut_off(leader);
        self.stir(300 * MS);
        let ends = self.chance.random_bool(0.7);
        for number in (0..self.machines.len()).filter(|&n| ends && n != leader && n != deaf) {
            if self.crash(number, Crash::Killed) {
                let back = self.within((100, 20 * MS));
                self.after(back, Event::Start { machine: number });
            }
        }
    }

    /// It hears nobody, and nobody hears it.
    pub fn cut_off(&mut self, number: usize) {
        self.part(|a, b| (a == number) != (b == number));
    }

    pub fn part(&mut self, apart: impl Fn(usize, usize) -> bool) {
        let count = self.machines.len();
        for a in 0..count {
            for b in (0..count).filter(|&b| b != a) {
                if apart(a, b) {
                    self.blocked.insert((a, b));
                }
            }
        }
    }

    fn pause(&mut self, victim: usize) {
        let (now, until) = (self.now, self.now + self.chance.random_range(50 * MS..4 * SECOND));
        if let Some(process) = &mut self.machines[victim].process
            && process.paused.is_none()
        {
            process.paused = Some((now, until));
            self.judge.stands_still(victim, until + 200 * MS);
            self.trace.count("pauses");
            // Whoever is connected asks late: others may have gone on by then.
            let (early, late) = ((until - now) / 2, until - now);
            self.hold(victim, (early, late));
            // Nobody may tell it what it has missed.
            if self.chance.random_bool(0.5) {
                self.cut_off(victim);
                self.heals_from = until + 300 * MS;
            }
        }
    }

    /// A machine comes back with nothing, under its old name.
    fn lose_disk(&mut self, victim: usize) {
        self.crash(victim, Crash::Lost);
        self.trace.count("disks lost");
        self.rebuild(victim);
        // Nobody has said that it is to take its own place.
        self.machines[victim].rebuild = false;
        self.after(100 * MS, Event::Start { machine: victim });
    }

    /// What can heal by itself does, now and then.
    pub fn heal_some(&mut self) {
        if self.now >= self.heals_from {
            self.heal();
        }
        if self.faulty {
            let next = self.within((100 * MS, self.plan.heal_every_ms * MS));
            self.after(next, Event::Heal);
        }
    }

    fn heal(&mut self) {
        self.blocked.clear();
        self.severed.clear();
        self.schemes.end();
        // What is on its way on a slow link is overtaken, as on a new connection.
        self.links.clear();
        for machine in &mut self.machines {
            (machine.disk_factor, machine.network_factor, machine.late) = (1, 1, None);
            machine.disk.set_capacity(None);
            machine.disk.fail_sync_after(u64::MAX);
        }
    }

    /// Nothing more goes wrong, and all that was wrong is well.
    pub fn heal_all(&mut self) {
        self.faulty = false;
        (self.plan.drop_ppm, self.plan.double_ppm, self.plan.corrupt_ppm) = (0, 0, 0);
        self.heal();
        for number in 0..self.machines.len() {
            let machine = &mut self.machines[number];
            (machine.stalled_until, machine.is_laggard) = (0, false);
            if let Some(process) = &mut machine.process {
                process.doomed = None;
            }
            if !machine.retired && machine.process.is_none() {
                self.after(MS, Event::Start { machine: number });
            }
        }
    }
}
