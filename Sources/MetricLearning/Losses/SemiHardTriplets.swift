import Basics

/// `semi_hard` and `tf_batch_semi_hard`: the margin of d(a,p) - d(a,n*), for every positive pair,
/// where n* is the nearest negative that is farther than p, or else the farthest.
///
/// The gradient of n* is shared evenly among negatives at the same distance. An anchor without
/// negatives adds nothing, or, as TensorFlow has it, counts with d(a,n*) = 0.
///
/// - SeeAlso: Schroff, Kalenichenko, Philbin, arXiv:1503.03832.
struct SemiHardTriplets: AnchorLoss {
    let margin: Margin
    let countsLoneAnchors: Bool

    func add(_ anchor: Anchor, summaries: [Double], to tally: inout LossTally) {
        let (positives, negatives) = (anchor.positives, anchor.negatives)
        guard !positives.isEmpty, countsLoneAnchors || !negatives.isEmpty else { return }
        let sorted = SortedPairs(positives)
        let chosen = chosenNegatives(sorted, negatives)
        var pulls: [(distance: Double, slope: Double, shared: Int)] = []
        for (place, pair) in sorted.places.enumerated() {
            let term = margin.term(sorted.distances[place] - chosen[place])
            tally.add(term.value)
            positives.gradient[pair] = term.slope
            if pulls.last?.distance == chosen[place] {
                pulls[pulls.count - 1].slope += term.slope
            } else {
                pulls.append((chosen[place], term.slope, 0))
            }
        }
        /// The pull on a negative at this distance, if there is one.
        func pull(at distance: Double) -> Int? {
            var (low, high) = (0, pulls.count)
            while low < high {
                let middle = (low + high) / 2
                if pulls[middle].distance < distance { low = middle + 1 } else { high = middle }
            }
            return low < pulls.count && pulls[low].distance == distance ? low : nil
        }
        for distance in negatives.distances {
            if let place = pull(at: distance) { pulls[place].shared += 1 }
        }
        for negative in 0..<negatives.count {
            guard let place = pull(at: negatives.distances[negative]) else { continue }
            negatives.gradient[negative] = -pulls[place].slope / Double(pulls[place].shared)
        }
    }

    /// d(a,n*) of each sorted positive; ascending, because what is the nearest beyond a positive is
    /// not beyond a farther one or the nearest there too.
    private func chosenNegatives(_ positives: SortedPairs, _ negatives: PairList) -> [Double] {
        let count = positives.distances.count
        var nearest = [Double](repeating: .infinity, count: count)
        var farthest = -Double.infinity
        for distance in negatives.distances {
            farthest = max(farthest, distance)
            let nearer = positives.firstPlace { $0 >= distance }
            if nearer > 0 { nearest[nearer - 1] = min(nearest[nearer - 1], distance) }
        }
        for place in (0..<count - 1).reversed() {
            nearest[place] = min(nearest[place], nearest[place + 1])
        }
        let otherwise = negatives.isEmpty ? 0 : farthest
        return nearest.map { $0 == .infinity ? otherwise : $0 }
    }
}
