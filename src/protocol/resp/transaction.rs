//! MULTI and EXEC: what is kept in between, and the replies to it.

use bytes::Bytes;

use super::call::{Call, Later, Plan, Planned, Refused};
use super::form::Form;
use super::parse::Words;
use super::session::Chosen;
use super::table::Spec;
use super::write::Out;
use super::{RespCodec, info, server, table, written};
use crate::request::{Answer, Batch, Command, Request, Status};

/// How many commands a transaction may have that take their time when EXEC is
/// answered, all at once: about a millisecond for an LCS, for a list of clients more.
const AT_EXEC: usize = 32;

/// A transaction that is being run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exec {
    /// How its commands are answered, each with its name.
    forms: Vec<(&'static str, Form)>,
    /// What was chosen among them.
    pub(super) chosen: Option<Chosen>,
    /// What has come, if there are commands to be run with that.
    answers: Vec<Answer>,
}

impl Exec {
    /// Whether the node itself has to be asked.
    pub(super) fn asks_the_node(&self) -> bool {
        self.forms.iter().any(|(_, form)| matches!(form, Form::AtExec { .. }))
    }

    /// With what the state machine has answered, to be kept.
    pub(super) fn with_answers(self, answers: &[Answer]) -> Self {
        Self { answers: answers.to_vec(), ..self }
    }

    /// What was kept.
    pub(super) fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }
}

pub(super) fn exec(call: &mut Call<'_>) -> Planned {
    let Some(transaction) = call.session.transaction.take() else {
        return Err("ERR EXEC without MULTI".into());
    };
    let guards = std::mem::take(&mut call.session.watched);
    let after = std::mem::replace(&mut call.session.chosen, transaction.before);
    let chosen = (after != call.session.chosen).then_some(after);
    if transaction.failed {
        return Err("EXECABORT Transaction discarded because of previous errors.".into());
    }
    let batch = Batch { guards, commands: transaction.commands };
    let consistency = call.session.chosen.consistency;
    let request = Request::Run { batch, consistency, session: None };
    Ok(Plan::Ask(
        request,
        Later::Exec(Exec { forms: transaction.forms, chosen, answers: Vec::new() }),
    ))
}

fn takes_time(form: &Form) -> bool {
    matches!(form, Form::Lcs(_) | Form::AtExec { .. })
}

impl RespCodec {
    /// Keeps a command for EXEC. What it would be refused for is its reply there,
    /// as in Redis, which finds out only then.
    pub(super) fn queue(
        &mut self,
        spec: &'static Spec,
        planned: Result<Plan, Refused>,
    ) -> Result<(&'static str, Plan), Refused> {
        let (commands, form) = match planned {
            Ok(Plan::Run(commands, form)) => (commands, form),
            Ok(Plan::Written(bytes)) => (Vec::new(), Form::Written(bytes)),
            Ok(Plan::Ask(..) | Plan::Late(..)) => unreachable!("what asks or waits is not queued"),
            Err(Refused(text)) => {
                let error = written(self.session.resp3, |out| out.error(&text));
                (Vec::new(), Form::Written(error))
            }
        };
        self.keep(spec, commands, form)
    }

    /// Keeps a command that EXEC is to run when it is answered.
    pub(super) fn queue_for_exec(
        &mut self,
        spec: &'static Spec,
        words: &Words,
    ) -> Result<(&'static str, Plan), Refused> {
        // INFO says how many keys there are.
        let counts = if spec.name == "info" { info::counts() } else { Vec::new() };
        let form = Form::AtExec { words: words.copied(), answers: counts.len() };
        self.keep(spec, counts, form)
    }

    fn keep(
        &mut self,
        spec: &'static Spec,
        commands: Vec<Command>,
        form: Form,
    ) -> Result<(&'static str, Plan), Refused> {
        let Some(transaction) = &mut self.session.transaction else {
            unreachable!("only within a transaction")
        };
        transaction.at_exec += usize::from(takes_time(&form));
        if transaction.at_exec > AT_EXEC {
            transaction.failed = true;
            let what = "commands about the node, and LCS";
            return Err(format!("ERR a transaction has at most {AT_EXEC} {what}").into());
        }
        let batch = Batch { guards: Vec::new(), commands };
        let bytes = match &form {
            Form::Written(bytes) => bytes.len(),
            Form::AtExec { words, .. } => words.size_bytes(),
            _ => 0,
        };
        transaction.bytes += batch.size_bytes() + bytes;
        let count = transaction.forms.len() + transaction.commands.len() + batch.commands.len();
        if transaction.bytes > self.limits.request_bytes || count > 2 * self.limits.batch_commands {
            // What is over the limit is not kept.
            transaction.failed = true;
            (transaction.commands, transaction.forms) = Default::default();
            let limits = &self.limits;
            return Err(format!(
                "ERR a transaction exceeds the limit of {} bytes or {} commands",
                limits.request_bytes, limits.batch_commands
            )
            .into());
        }
        transaction.commands.extend(batch.commands);
        transaction.forms.push((spec.name, form));
        Ok((spec.name, Plan::Written(Bytes::from_static(b"+QUEUED\r\n"))))
    }

    /// A command that is none: EXEC will refuse the whole, and if it is EXEC
    /// itself, it does.
    pub(super) fn refuse_in_transaction(&mut self, words: &Words, refused: Refused) -> Refused {
        if !words.get(0).eq_ignore_ascii_case(b"exec") {
            self.fail_transaction();
            return refused;
        }
        self.session.discard();
        let reason = refused.0.trim_start_matches("ERR ");
        format!("EXECABORT Transaction discarded because of: {reason}").into()
    }

    /// A command was refused before it was queued: EXEC will refuse the whole.
    pub(super) fn fail_transaction(&mut self) {
        if let Some(transaction) = &mut self.session.transaction {
            transaction.failed = true;
        }
    }

    /// Writes the replies of a transaction, one after the other.
    pub(super) fn write_exec(
        &mut self,
        exec: Exec,
        answers: &[Answer],
        status: Option<&Status>,
        out: &mut Out<'_>,
    ) {
        let mut answers = answers.iter();
        let start = out.bytes.len();
        out.array(exec.forms.len());
        for (name, form) in &exec.forms {
            // Whoever is told that it is too large need not have all of it.
            if out.bytes.len() - start > self.limits.reply_bytes {
                break;
            }
            match (form, status) {
                (Form::AtExec { words, answers: count }, Some(status)) => {
                    let counts: Vec<Answer> = answers.by_ref().take(*count).cloned().collect();
                    self.run_at_exec(name, words, status, &counts, out);
                }
                _ => form.write(name, &mut answers, out),
            }
        }
        if let Some(chosen) = exec.chosen {
            self.session.chosen = chosen;
            self.session.describe();
        }
    }

    fn run_at_exec(
        &mut self,
        name: &'static str,
        words: &Words,
        status: &Status,
        counts: &[Answer],
        out: &mut Out<'_>,
    ) {
        let (session, limits) = (&mut self.session, &self.limits);
        let spec = table::find(name.as_bytes()).expect("it was found when it was queued");
        let planned = spec.run(&mut Call { words, session, limits, name });
        if spec.is_about_the_connection() {
            self.session.describe();
        }
        match planned {
            Ok(Plan::Written(bytes)) => out.bytes.extend_from_slice(&bytes),
            Ok(Plan::Ask(_, Later::Info(info))) => info.with_status(status).write(counts, out),
            Ok(Plan::Ask(_, later)) => server::write_about_node(&later, status, out),
            Ok(Plan::Run(..) | Plan::Late(..)) => unreachable!("it is about the node"),
            Err(Refused(text)) => out.error(&text),
        }
    }
}
