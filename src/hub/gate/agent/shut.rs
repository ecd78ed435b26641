use std::collections::BTreeSet;

use futures::future::join_all;

use super::World;
use crate::core::Problem;

/// Shuts every door and puts every student out, where no agent can begin, and returns what did not work.
///
/// Nobody knows then whose slot it is, and nobody is to be in outside of one.
pub async fn shut_all(world: &dyn World) -> Vec<Problem> {
    let mut problems = vec![];
    let mut accounts: BTreeSet<String> = world.accounts().into_iter().collect();
    match world.principals() {
        Ok(found) => accounts.extend(found.into_keys()),
        Err(problem) => problems.push(problem),
    }
    // Every door before anything that takes time.
    problems.extend(accounts.iter().filter_map(|account| world.set_principals(account, "").err()));
    let evicted = join_all(accounts.iter().map(|account| world.evict(account))).await;
    problems.extend(evicted.into_iter().filter_map(Result::err));
    problems
}
