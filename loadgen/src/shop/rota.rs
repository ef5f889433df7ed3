//! Members that have their turn one after the other, for ever: how often each had it by now is known without counting.

/// The order of turns: every member once, then all again.
#[derive(Clone, Debug)]
pub(super) struct Rota {
    members: u64,
    /// The member of turn t is `t * step mod members`, so that neighbours do not follow each other.
    step: u64,
    /// What takes that back.
    inverse: u64,
}

impl Rota {
    /// The `variety`-th order of that many members.
    pub(super) fn new(members: u64, variety: u64) -> Rota {
        let wanted = members / 3 + 7 * variety;
        let step =
            (wanted..).find(|step| gcd(*step, members) == 1).expect("1 more than a multiple has no factor in common")
                % members;
        Rota { members, step, inverse: inverse(step, members) }
    }

    /// Whose turn it is, from 0.
    pub(super) fn member(&self, turn: u64) -> u64 {
        product(turn % self.members, self.step, self.members)
    }

    /// How many of the first `turns` turns were the member's.
    pub(super) fn turns_of(&self, member: u64, turns: u64) -> u64 {
        let place = product(member, self.inverse, self.members);
        turns / self.members + u64::from(turns % self.members > place)
    }
}

fn product(a: u64, b: u64, modulus: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(modulus)) as u64
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The number whose product with `a` is 1 modulo `modulus` (extended Euclid).
fn inverse(a: u64, modulus: u64) -> u64 {
    let (mut low, mut high) = ((i128::from(a), 1), (i128::from(modulus), 0));
    while low.0 > 1 {
        let times = high.0 / low.0;
        (low, high) = ((high.0 - times * low.0, high.1 - times * low.1), low);
    }
    low.1.rem_euclid(i128::from(modulus)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_what_counting_gives() {
        for members in [1, 2, 3, 7, 12, 200, 997] {
            for variety in 1..4 {
                let rota = Rota::new(members, variety);
                let mut counted = vec![0; members as usize];
                for turn in 0..3 * members + 2 {
                    counted[rota.member(turn) as usize] += 1;
                    let all: Vec<u64> = (0..members).map(|member| rota.turns_of(member, turn + 1)).collect();
                    assert_eq!(all, counted, "{members} members, turn {turn}");
                }
            }
        }
    }
}
