import Basics

/// `batch_all`: the margin of d(a,p) - d(a,n), for every triplet.
///
/// A number as margin takes O((P + N) log P) an anchor, which may have any number of images; `soft`
/// takes O(P N).
///
/// - SeeAlso: Hermans, Beyer, Leibe, arXiv:1703.07737.
struct AllTriplets: AnchorLoss {
    let margin: Margin

    func add(_ anchor: Anchor, summaries: [Double], to tally: inout LossTally) {
        if case .number(let value) = margin {
            addHinges(anchor, value, to: &tally)
        } else {
            addEach(anchor, to: &tally)
        }
    }

    /// A negative at distance d violates the margin with the positives from some place on, when
    /// these are sorted.
    private func addHinges(_ anchor: Anchor, _ margin: Double, to tally: inout LossTally) {
        let positives = SortedPairs(anchor.positives)
        let (near, count) = (positives.distances, anchor.positives.count)
        guard count > 0 else { return }
        // What the positives from a place on are farther than the one there, together.
        var beyond = [Double](repeating: 0, count: count)
        for place in (0..<count - 1).reversed() {
            beyond[place] =
                beyond[place + 1]
                + Double(count - 1 - place) * (near[place + 1] - near[place])
        }
        var violations = [Int](repeating: 0, count: count)
        var (sum, active) = (0.0, 0)
        let negatives = anchor.negatives
        for place in 0..<negatives.count {
            let distance = negatives.distances[place]
            let first = positives.firstPlace { $0 - distance + margin > 0 }
            guard first < count else { continue }
            let pulled = count - first
            sum += beyond[first] + Double(pulled) * (near[first] - distance + margin)
            negatives.gradient[place] = -Double(pulled)
            violations[first] += 1
            active += count - positives.firstPlace { $0 - distance + margin > tally.threshold }
        }
        var total = 0
        for place in 0..<count {
            total += violations[place]
            anchor.positives.gradient[positives.places[place]] = Double(total)
        }
        tally.add(sum: sum, valid: count * negatives.count, active: active)
    }

    private func addEach(_ anchor: Anchor, to tally: inout LossTally) {
        let (positives, negatives) = (anchor.positives, anchor.negatives)
        for positive in 0..<positives.count {
            let near = positives.distances[positive]
            var pull = 0.0
            for negative in 0..<negatives.count {
                let term = margin.term(near - negatives.distances[negative])
                tally.add(term.value)
                pull += term.slope
                negatives.gradient[negative] -= term.slope
            }
            positives.gradient[positive] = pull
        }
    }
}

/// Pairs from the nearest to the farthest; of equal ones the lower row is first.
struct SortedPairs {
    /// Places in the list that was sorted.
    let places: [Int]
    /// Their distances, ascending.
    let distances: [Double]

    init(_ pairs: PairList) {
        places = (0..<pairs.count).sorted {
            (pairs.distances[$0], $0) < (pairs.distances[$1], $1)
        }
        distances = places.map { pairs.distances[$0] }
    }

    /// The first place that passes; all after it must.
    @inline(__always)
    func firstPlace(_ passes: (Double) -> Bool) -> Int {
        var (low, high) = (0, distances.count)
        while low < high {
            let middle = (low + high) / 2
            if passes(distances[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
