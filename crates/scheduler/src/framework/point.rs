//! [`Point`]: the extension points by name, and [`Arrangement`]: which plugin runs where, in which order.

/// An extension point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Point {
    PreEnqueue,
    QueueSort,
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
}

/// The plugins of each point, as positions in the list of all plugins of a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrangement([Vec<usize>; Point::ALL.len()]);

// === impl Point ===

impl Point {
    pub const ALL: [Self; 11] = [
        Self::PreEnqueue,
        Self::QueueSort,
        Self::PreFilter,
        Self::Filter,
        Self::PostFilter,
        Self::PreScore,
        Self::Score,
        Self::Reserve,
        Self::Permit,
        Self::PreBind,
        Self::Bind,
    ];

    /// As configuration files call it.
    pub fn field(self) -> &'static str {
        match self {
            Self::PreEnqueue => "preEnqueue",
            Self::QueueSort => "queueSort",
            Self::PreFilter => "preFilter",
            Self::Filter => "filter",
            Self::PostFilter => "postFilter",
            Self::PreScore => "preScore",
            Self::Score => "score",
            Self::Reserve => "reserve",
            Self::Permit => "permit",
            Self::PreBind => "preBind",
            Self::Bind => "bind",
        }
    }

    /// As upstream's messages call what serves it.
    pub fn interface(self) -> &'static str {
        match self {
            Self::PreEnqueue => "PreEnqueuePlugin",
            Self::QueueSort => "QueueSortPlugin",
            Self::PreFilter => "PreFilterPlugin",
            Self::Filter => "FilterPlugin",
            Self::PostFilter => "PostFilterPlugin",
            Self::PreScore => "PreScorePlugin",
            Self::Score => "ScorePlugin",
            Self::Reserve => "ReservePlugin",
            Self::Permit => "PermitPlugin",
            Self::PreBind => "PreBindPlugin",
            Self::Bind => "BindPlugin",
        }
    }
}

// === impl Arrangement ===

impl Arrangement {
    pub fn at(&self, point: Point) -> &[usize] {
        &self.0[point as usize]
    }

    pub fn set(&mut self, point: Point, plugins: Vec<usize>) {
        self.0[point as usize] = plugins;
    }
}
