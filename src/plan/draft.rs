//! A plan in the making: steps are added, each with what it waits for; at the end they are put
//! into an order in which they could run one after the other.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{AppId, BalancerName, Span};

use super::{Action, Need, Place, Step, StepId};

/// Steps by id, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Draft {
    steps: Vec<Step>,
    index: BTreeMap<StepId, usize>,
}

/// What a step is made of beside its waits.
pub(super) struct NewStep {
    pub app: Option<AppId>,
    pub place: Place,
    /// What it acts on, for its id: unique with app, place and kind.
    pub object: String,
    pub action: Action,
    pub deadline: Span,
    pub summary: String,
}

impl Draft {
    /// Adds a step that waits for `after`, and gives its id. A step that is there already gets
    /// the waits in addition.
    pub fn add(&mut self, new: NewStep, after: impl IntoIterator<Item = StepId>) -> StepId {
        let NewStep { app, place, object, action, deadline, summary } = new;
        let owner = app.as_ref().map_or_else(|| "balancers".to_owned(), AppId::to_string);
        let id = StepId(format!("{owner}/{place}/{}/{object}", action.kind()));
        let position = *self.index.entry(id.clone()).or_insert_with(|| {
            let (id, after, needs) = (id.clone(), Vec::new(), Vec::new());
            self.steps.push(Step { id, app, place, after, needs, summary, deadline, action });
            self.steps.len() - 1
        });
        self.wait(position, after);
        id
    }

    /// Lets a step that is there wait for more.
    pub fn also_after(&mut self, id: &StepId, after: impl IntoIterator<Item = StepId>) {
        if let Some(position) = self.index.get(id) {
            self.wait(*position, after);
        }
    }

    /// Lets a step at one of these balancers begin only while those servers are up.
    pub fn needs(&mut self, id: &StepId, at: &BTreeSet<&BalancerName>, needs: &BTreeSet<Need>) {
        let Some(step) = self.index.get(id).and_then(|at| self.steps.get_mut(*at)) else { return };
        if matches!(&step.place, Place::Balancer(balancer) if at.contains(balancer)) {
            let all: BTreeSet<Need> = step.needs.drain(..).chain(needs.iter().cloned()).collect();
            step.needs = all.into_iter().collect();
        }
    }

    fn wait(&mut self, position: usize, after: impl IntoIterator<Item = StepId>) {
        let Some(step) = self.steps.get_mut(position) else { return };
        let mut all: BTreeSet<StepId> = step.after.drain(..).collect();
        all.extend(after);
        all.remove(&step.id);
        step.after = all.into_iter().collect();
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The steps in an order in which each comes after those it waits for; among those that
    /// could come next, the one that was added first (Kahn's algorithm).
    pub fn in_order(self) -> Vec<Step> {
        let Self { steps, index } = self;
        let mut waits: Vec<usize> = Vec::with_capacity(steps.len());
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
        for (position, step) in steps.iter().enumerate() {
            let before: Vec<usize> =
                step.after.iter().filter_map(|id| index.get(id).copied()).collect();
            waits.push(before.len());
            for earlier in before {
                followers[earlier].push(position);
            }
        }
        let mut ready: BTreeSet<usize> =
            (0..steps.len()).filter(|position| waits[*position] == 0).collect();
        let mut order = Vec::with_capacity(steps.len());
        while let Some(position) = ready.pop_first() {
            order.push(position);
            for follower in &followers[position] {
                waits[*follower] -= 1;
                if waits[*follower] == 0 {
                    ready.insert(*follower);
                }
            }
        }
        let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
        order.into_iter().filter_map(|position| steps[position].take()).collect()
    }
}
