//! What makes way when the data set has reached its limit.

/// Whose turn it is. The names are those of Redis' `maxmemory-policy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// Nobody's: writes that grow the data set are refused.
    #[default]
    NoEviction,
    /// The key unused for longest.
    AllKeysLru,
    /// The key used least often.
    AllKeysLfu,
    /// Any key.
    AllKeysRandom,
    /// Of the keys with a deadline the one unused for longest.
    VolatileLru,
    /// Of the keys with a deadline the one used least often.
    VolatileLfu,
    /// Any key with a deadline.
    VolatileRandom,
    /// The key whose deadline is next.
    VolatileTtl,
}

/// The least that a data set may be limited to.
pub const SMALLEST_MEMORY_BYTES: u64 = 1 << 20;

/// How large the data set may grow, and what happens then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryLimit {
    /// How many bytes it may count as.
    pub bytes: u64,
    /// What makes way at that limit.
    pub eviction: EvictionPolicy,
}

/// By what keys are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictionOrder {
    /// How long ago they were used.
    Lru,
    /// How often they are used.
    Lfu,
    /// Nothing.
    Random,
    /// When they go anyway.
    Ttl,
}

impl EvictionPolicy {
    /// All of them, in Redis' order.
    pub const ALL: [Self; 8] = [
        Self::VolatileLru,
        Self::VolatileLfu,
        Self::VolatileRandom,
        Self::VolatileTtl,
        Self::AllKeysLru,
        Self::AllKeysLfu,
        Self::AllKeysRandom,
        Self::NoEviction,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllKeysLru => "allkeys-lru",
            Self::AllKeysLfu => "allkeys-lfu",
            Self::AllKeysRandom => "allkeys-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }

    /// The policy of this name, in upper or lower case.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name().eq_ignore_ascii_case(name))
    }

    /// By what it compares; `None` if nothing ever makes way.
    pub fn order(self) -> Option<EvictionOrder> {
        match self {
            Self::NoEviction => None,
            Self::AllKeysLru | Self::VolatileLru => Some(EvictionOrder::Lru),
            Self::AllKeysLfu | Self::VolatileLfu => Some(EvictionOrder::Lfu),
            Self::AllKeysRandom | Self::VolatileRandom => Some(EvictionOrder::Random),
            Self::VolatileTtl => Some(EvictionOrder::Ttl),
        }
    }

    /// Whether only keys with a deadline make way.
    pub fn is_volatile(self) -> bool {
        matches!(
            self,
            Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_found_by_its_name() {
        for policy in EvictionPolicy::ALL {
            assert_eq!(EvictionPolicy::find(&policy.name().to_uppercase()), Some(policy));
            assert_eq!(policy.is_volatile(), policy.name().starts_with("volatile"));
            assert_eq!(policy.order().is_none(), policy == EvictionPolicy::NoEviction);
        }
        assert_eq!(EvictionPolicy::find("allkeys"), None);
    }
}
