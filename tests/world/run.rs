//! Runs plans in the world: in any order that their steps allow, with a step that fails or a
//! crash, and rounds of looking, planning and running until nothing is left to do.

use std::collections::BTreeSet;

use plimsoll::model::Hold;
use plimsoll::plan::{Plan, Step, StepId, render};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Refusal, World};

/// In which of the possible orders the steps run.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// As they are printed.
    Printed,
    /// Drawn with that seed.
    Drawn(u64),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The step at that place of the run fails, and what waits for it is skipped.
    Fails(usize),
    /// The same, but its effect is there: the answer was lost.
    AnswerLost(usize),
    /// After so many steps nothing more happens.
    CrashAfter(usize),
    /// Every step is done twice.
    Twice,
}

impl World {
    /// Runs a plan, and checks at each step that no route falls below the printed floor.
    pub fn run(&mut self, plan: &Plan, order: Order, fault: Fault) {
        let mut draw = match order {
            Order::Printed => None,
            Order::Drawn(seed) => Some(StdRng::seed_from_u64(seed)),
        };
        let mut done: BTreeSet<&StepId> = BTreeSet::new();
        let mut tried: BTreeSet<&StepId> = BTreeSet::new();
        self.check_floors(plan, None);
        for number in 0.. {
            if fault == Fault::CrashAfter(number) {
                return;
            }
            let ready: Vec<&Step> = plan
                .steps
                .iter()
                .filter(|step| !tried.contains(&step.id))
                .filter(|step| step.after.iter().all(|id| done.contains(id)))
                .collect();
            if ready.is_empty() {
                break;
            }
            let chosen = draw.as_mut().map_or(0, |draw| draw.random_range(0..ready.len()));
            let step = ready[chosen];
            tried.insert(&step.id);
            if self.try_step(step, number, fault) {
                done.insert(&step.id);
            }
            self.check_floors(plan, Some(step));
        }
        if matches!(fault, Fault::None | Fault::Twice) && self.bad.is_empty() {
            assert_eq!(done.len(), plan.steps.len(), "steps wait for each other");
        }
    }

    /// True where the step is done, as far as the executor knows.
    fn try_step(&mut self, step: &Step, number: usize, fault: Fault) -> bool {
        let result = match fault {
            Fault::Fails(at) if at == number => Err(Refusal::Passing),
            Fault::AnswerLost(at) if at == number => {
                let _ = self.act(step);
                Err(Refusal::Passing)
            }
            Fault::Twice => {
                let first = self.act(step);
                let (hosts, balancers) = (self.hosts.clone(), self.balancers.clone());
                let second = self.act(step);
                assert_eq!(first, second, "{} twice", step.id);
                assert_eq!((&hosts, &balancers), (&self.hosts, &self.balancers), "{}", step.id);
                second
            }
            _ => self.act(step),
        };
        if let (Err(Refusal::Revision(revision)), Some(app)) = (&result, &step.app) {
            let hold = Hold {
                app: app.clone(),
                revision: *revision,
                commit: self.desired.commit.clone(),
                reason: format!("{} failed", step.action.kind()),
            };
            self.known.holds.insert(app.clone(), hold);
        }
        result.is_ok()
    }

    fn check_floors(&self, plan: &Plan, step: Option<&Step>) {
        for floor in &plan.routes {
            let serving = self.serving(&floor.app, &floor.route.balancer);
            assert!(
                serving >= floor.lowest_healthy,
                "{}: {serving} serve, {} were promised, after {:?}\n{}",
                floor.route,
                floor.lowest_healthy,
                step.map(|step| &step.summary),
                render(plan, false)
            );
        }
    }

    /// Looks, plans and runs until nothing is left to do. Returns the plans.
    pub fn converge(&mut self, order: Order, rounds: usize) -> Vec<Plan> {
        let mut plans = Vec::new();
        for round in 0..=rounds {
            self.pass_time();
            let plan = self.plan();
            let findings = self.findings(&plan);
            assert!(findings.is_empty(), "{findings:#?}\n{}", render(&plan, false));
            if plan.is_empty() {
                return plans;
            }
            assert!(
                round < rounds,
                "not converged after {rounds} rounds:\n{}",
                plans.iter().chain([&plan]).map(|p| render(p, false)).collect::<String>()
            );
            let order = match order {
                Order::Printed => Order::Printed,
                Order::Drawn(seed) => Order::Drawn(seed.wrapping_add(round as u64)),
            };
            self.run(&plan, order, Fault::None);
            plans.push(plan);
        }
        plans
    }
}
