//! The skewed choice of YCSB: number `i` comes with a probability proportional to
//! `1 / (i + 1)^0.99`. The method is that of Gray et al., "Quickly generating billion-record
//! synthetic databases", 1994: one draw a number, after summing up once.

const THETA: f64 = 0.99;

/// The sums for one count of numbers.
#[derive(Clone, Debug)]
pub(super) struct Zipfian {
    count: u32,
    zeta: f64,
    eta: f64,
    alpha: f64,
}

impl Zipfian {
    /// For numbers below `count`, which is not zero. Takes time in proportion to it.
    pub(super) fn new(count: u32) -> Self {
        let sum = |count: u32| (1..=count).map(|i| f64::from(i).powf(-THETA)).sum::<f64>();
        let zeta = sum(count);
        let eta = (1.0 - (2.0 / f64::from(count)).powf(1.0 - THETA)) / (1.0 - sum(2) / zeta);
        Self { count, zeta, eta, alpha: 1.0 / (1.0 - THETA) }
    }

    /// The number that belongs to `draw`, evenly drawn out of `[0, 1)`.
    pub(super) fn pick(&self, draw: f64) -> u32 {
        let scaled = draw * self.zeta;
        let number = match scaled {
            _ if scaled < 1.0 => 0,
            _ if scaled < 1.0 + 0.5_f64.powf(THETA) => 1,
            _ => {
                let share = (self.eta * draw - self.eta + 1.0).powf(self.alpha);
                (f64::from(self.count) * share) as u32
            }
        };
        number.min(self.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_the_count() {
        for count in [1, 2, 3, 10, 100_000] {
            let zipfian = Zipfian::new(count);
            for draw in [0.0, 0.1, 0.5, 0.9, 0.999_999, 1.0 - f64::EPSILON] {
                assert!(zipfian.pick(draw) < count, "{draw} of {count}");
            }
        }
    }

    #[test]
    fn the_first_is_as_hot_as_it_should_be_and_the_last_is_reached() {
        let zipfian = Zipfian::new(1000);
        let draws = 100_000;
        let mut counts = vec![0_u32; 1000];
        for i in 0..draws {
            counts[zipfian.pick(f64::from(i) / f64::from(draws)) as usize] += 1;
        }
        let share = |number: usize| f64::from(counts[number]) / f64::from(draws);
        assert!((share(0) - 1.0 / zipfian.zeta).abs() < 0.001, "{}", share(0));
        assert!((share(1) - 0.5_f64.powf(THETA) / zipfian.zeta).abs() < 0.001, "{}", share(1));
        assert!(counts[999] > 0 && counts[0] > 100 * counts[999]);
    }
}
