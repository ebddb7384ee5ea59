//! Puts the meter into a compiled template. minijinja counts steps, each of any size; here the steps whose size depends
//! on their operands are replaced by operators (`operators.rs`) that count them, or get one before or after them. What is
//! left takes a fixed time and no more memory than the source is long.

use minijinja::{
    Error, Value,
    machinery::{Instruction, Instructions},
};

use super::{
    data::own,
    meter::{Meter, refuse},
    operators::{OPERATORS, operator},
};
use std::sync::Arc;

/// Filters that minijinja keeps at hand for a run of its loop, by number.
const SLOTS: usize = 50;

/// The same program, metered.
pub(super) fn metered<'s>(old: &Instructions<'s>, meter: &Arc<Meter>) -> Result<Instructions<'s>, Error> {
    let mut new = Instructions::new(old.name(), old.source());
    let mut places = Vec::with_capacity(old.len() + 1);
    let mut enclosed = 0;
    for (at, step) in (0..).map_while(|at| old.get(at).map(|step| (at, step))) {
        places.push(new.len() as u32);
        if let Instruction::Jump(to) = step {
            stays_within(old, at, *to)?;
        }
        let line = old.get_line(at).unwrap_or(0) as u16;
        for step in replaced(step, old.get(at + 1), enclosed, meter)? {
            new.add_with_line(step, line);
        }
        enclosed = match step {
            Instruction::Enclose(_) => enclosed + 1,
            Instruction::BuildMacro(..) => 0,
            _ => enclosed,
        };
    }
    places.push(new.len() as u32);
    for at in 0..new.len() as u32 {
        use Instruction::{BuildMacro, Iterate, Jump, JumpIfFalse, JumpIfFalseOrPop, JumpIfTrueOrPop};
        if let Some(Iterate(to) | Jump(to) | JumpIfFalse(to) | JumpIfFalseOrPop(to) | JumpIfTrueOrPop(to) | BuildMacro(_, to, _)) =
            new.get_mut(at)
        {
            *to = places[*to as usize];
        }
    }
    Ok(new)
}

/// That a jump leaves no `with` behind: minijinja ends one at its end only, and would take it for the loop that `break` and `continue` are of.
fn stays_within(program: &Instructions<'_>, at: u32, to: u32) -> Result<(), Error> {
    let passed = || (at.min(to)..at.max(to)).filter_map(|i| program.get(i));
    let begun = passed().filter(|step| matches!(step, Instruction::PushWith)).count();
    let ended = passed().filter(|step| matches!(step, Instruction::PopFrame)).count();
    match (to > at && ended > begun) || (to < at && begun > ended) {
        true => Err(refuse("break and continue within {% with %} are not supported")),
        false => Ok(()),
    }
}

/// A call of an operator on the topmost `count` values.
fn op<'s>(name: &'static str, count: u16) -> Instruction<'s> {
    Instruction::ApplyFilter(name, Some(count), (SLOTS - 1 - operator(name)) as u8)
}

fn replaced<'s>(
    step: &Instruction<'s>,
    next: Option<&Instruction<'s>>,
    enclosed: usize,
    meter: &Arc<Meter>,
) -> Result<Vec<Instruction<'s>>, Error> {
    use Instruction::*;
    let count = |n: usize| u16::try_from(n).map_err(|_| refuse("a list or map has more than 65535 items"));
    Ok(match step {
        EmitRaw(text) => vec![LoadConst(Value::from(*text)), Emit],
        LoadConst(value) if !value.is_kwargs() => vec![LoadConst(own(meter, value.clone())?)],

        // These are minijinja's own, after a look at the operands.
        Mul => vec![op("@*", 2), UnpackList(2), Mul, op("@own", 1)],
        CompareAndPreserve(_) => vec![op("@compare", 2), UnpackList(2), step.clone()],
        Add => vec![op("@+", 2)],
        StringConcat => vec![op("@~", 2)],
        Eq => vec![op("@==", 2)],
        Ne => vec![op("@!=", 2)],
        Lt => vec![op("@<", 2)],
        Lte => vec![op("@<=", 2)],
        Gt => vec![op("@>", 2)],
        Gte => vec![op("@>=", 2)],
        In => vec![op("@in", 2)],
        GetItem => vec![op("@[]", 2)],
        Slice => vec![op("@[:]", 4)],
        // `a, b = c, d`: a namespace, too, may be in a list that is taken apart at once.
        BuildList(Some(_)) if matches!(next, Some(UnpackList(_))) => vec![step.clone()],
        BuildList(Some(n)) => vec![op("@list", count(*n)?)],
        BuildMap(n) => vec![op("@map", count(2 * n)?)],

        // `for … if` keeps the items that pass on the stack: the only swap of a count and an item.
        Swap if matches!(next, Some(LoadConst(_))) => vec![op("@pass", 1), Swap],
        BuildList(None) => vec![BuildList(None), op("@passed", 1)],
        PushLoop(_) | FastRecurse => vec![op("@iterate", 1), step.clone()],
        SetAttr(_) => vec![Swap, op("@data", 1), Swap, step.clone()],

        // A loop that is called goes over the argument, whatever name it goes by.
        CallFunction(name, Some(1)) => vec![op("@iterate", 1), step.clone(), Lookup(name), op("@called", 2)],
        CallFunction(name, Some(_)) => vec![step.clone(), Lookup(name), op("@called", 2)],
        // A loop's own methods: `changed` keeps its arguments, `cycle` divides by their number.
        CallMethod("changed", _) | CallMethod("cycle", Some(1)) => return Err(refuse("loop.changed and loop.cycle() are not supported")),
        CallMethod(_, Some(_)) | CallObject(Some(_)) => vec![step.clone(), op("@own", 1)],
        CallFunction(..) | CallMethod(..) | CallObject(_) | UnpackLists(_) | MergeKwargs(_) => {
            return Err(refuse("calls with *arguments or **arguments are not supported"));
        }

        FastSuper | CallBlock(_) | LoadBlocks | Include(_) | ExportLocals => {
            return Err(refuse("a chat template is one file without blocks"));
        }
        PushAutoEscape => return Err(refuse("a chat template is not escaped")),

        // A capture that a `break` leaves is never ended.
        BeginCapture(_) => vec![LoadConst(Value::UNDEFINED), op("@capture", 1), DiscardTop, step.clone()],
        EndCapture => vec![EndCapture, op("@captured", 1)],
        BuildMacro(..) => vec![step.clone(), LoadConst(Value::from(enclosed)), op("@macro", 2)],

        // minijinja numbers the template's filters from 0, the operators are numbered from the end.
        ApplyFilter(name, n, id) if usize::from(*id) >= SLOTS - OPERATORS.len() => vec![ApplyFilter(name, *n, !0)],
        other => vec![other.clone()],
    })
}
