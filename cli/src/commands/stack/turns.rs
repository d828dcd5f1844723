//! In which order things take their turn, where some have to come after others.

/// Whether one had its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Open,
    /// Something that it comes after is looked at.
    Waiting,
    Had,
}

/// Numbers from 0 in order, but each behind those that it `needs`.
///
/// # Errors
/// Numbers of which each needs the next one, and the last one the first.
pub(super) fn in_turn(needs: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut order = Vec::with_capacity(needs.len());
    let mut turns = vec![Turn::Open; needs.len()];
    for start in 0..needs.len() {
        // In depth without recursion: those on the way, each with its next need to look at.
        let mut way: Vec<(usize, usize)> = Vec::new();
        if turns[start] == Turn::Open {
            turns[start] = Turn::Waiting;
            way.push((start, 0));
        }
        while let Some(step) = way.last_mut() {
            let (index, next) = *step;
            step.1 += 1;
            let Some(need) = needs[index].get(next).copied() else {
                turns[index] = Turn::Had;
                order.push(index);
                way.pop();
                continue;
            };
            match turns[need] {
                Turn::Had => {}
                Turn::Open => {
                    turns[need] = Turn::Waiting;
                    way.push((need, 0));
                }
                Turn::Waiting => {
                    let numbers = way.iter().map(|(number, _)| *number);
                    return Err(numbers.skip_while(|number| *number != need).collect());
                }
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_the_rest_stays_in_order() {
        assert_eq!(in_turn(&[vec![], vec![], vec![]]), Ok(vec![0, 1, 2]));
        let needs = [vec![2], vec![], vec![3], vec![]];
        assert_eq!(in_turn(&needs), Ok(vec![3, 2, 0, 1]));
        let circle = [vec![], vec![2], vec![3], vec![1]];
        assert_eq!(in_turn(&circle), Err(vec![1, 2, 3]));
    }
}
