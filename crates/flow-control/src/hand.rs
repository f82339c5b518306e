//! Shuffle sharding: which few of the queues a flow may use.

/// As validation allows at most.
const HAND_MAX: usize = 10;

/// Deals `size` different cards from a deck of `deck`. The same hash gives the same hand, and two flows rarely have
/// the same one, so that a flood in one leaves the other a queue of its own.
pub(crate) fn deal(hash: u64, deck: usize, size: usize) -> impl Iterator<Item = usize> {
    let size = size.min(deck).min(HAND_MAX);
    let mut hand = [0; HAND_MAX];
    let mut rest = hash;
    for dealt in 0..size {
        let left = (deck - dealt) as u64;
        let mut card = (rest % left) as usize;
        rest /= left;
        // `card` counts the cards still in the deck; step over those that were dealt, lowest first.
        let mut taken = hand;
        let taken = &mut taken[..dealt];
        taken.sort_unstable();
        for &other in taken.iter() {
            if card >= other {
                card += 1;
            }
        }
        hand[dealt] = card;
    }
    hand.into_iter().take(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_has_different_cards_of_the_deck() {
        for hash in (0..10_000_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
            for (deck, size) in [(128, 6), (16, 4), (10, 10), (1, 1), (3, 8)] {
                let mut hand: Vec<usize> = deal(hash, deck, size).collect();
                assert_eq!(hand.len(), size.min(deck));
                hand.sort_unstable();
                hand.dedup();
                assert_eq!(hand.len(), size.min(deck), "{hash} {deck} {size}");
                assert!(hand.iter().all(|&card| card < deck));
            }
        }
    }

    #[test]
    fn every_card_is_dealt_about_as_often() {
        let mut dealt = [0_u32; 16];
        for hash in (0..16_000_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
            deal(hash, 16, 4).for_each(|card| dealt[card] += 1);
        }
        assert!(dealt.iter().all(|&count| (3_500..4_500).contains(&count)), "{dealt:?}");
    }
}
