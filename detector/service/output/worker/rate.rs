//! So many in any sixty seconds, and no more.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// What went out during the last minute, and how much may.
#[derive(Debug)]
pub struct Rate {
    most: usize,
    used: usize,
    sent: VecDeque<(Instant, usize)>,
}

impl Rate {
    pub fn new(a_minute: u32) -> Self {
        Self { most: a_minute as usize, used: 0, sent: VecDeque::new() }
    }

    /// How many may go now.
    pub fn free(&mut self) -> usize {
        while let Some((_, count)) = self.sent.front().filter(|(at, _)| at.elapsed() >= MINUTE) {
            self.used -= count;
            self.sent.pop_front();
        }
        self.most - self.used
    }

    /// How long until so many may go; nothing when they may now.
    pub fn wait(&mut self, count: usize) -> Duration {
        let mut free = self.free();
        let mut until = Duration::ZERO;
        for (at, count_then) in &self.sent {
            if free >= count.min(self.most) {
                break;
            }
            free += count_then;
            until = MINUTE.saturating_sub(at.elapsed());
        }
        until
    }

    /// So many go now. More than may is as much as may.
    pub fn go(&mut self, count: usize) {
        let count = count.min(self.free());
        self.used += count;
        self.sent.push_back((Instant::now(), count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_sixty_seconds_have_more() {
        let mut rate = Rate::new(10);
        let (start, mut sent) = (Instant::now(), Vec::new());
        // Ones, pairs and threes, each as soon as it may; now and then a rest.
        for n in 0..60 {
            let count = n % 3 + 1;
            tokio::time::sleep(rate.wait(count)).await;
            assert!(rate.free() >= count);
            rate.go(count);
            sent.extend(std::iter::repeat_n(start.elapsed(), count));
            if n % 7 == 0 {
                tokio::time::sleep(Duration::from_secs(13)).await;
            }
        }
        for eleven in sent.windows(11) {
            assert!(eleven[10] - eleven[0] >= MINUTE, "{eleven:?}");
        }
        assert!(start.elapsed() < MINUTE * 14, "{:?} for twelve minutes' worth", start.elapsed());
    }
}
