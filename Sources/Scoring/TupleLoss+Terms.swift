import Basics
import Foundation

/// One row's distances to those of its label and to the others.
private struct Neighbours {
    let near: [Double]
    let nearRows: [Int]
    let far: [Double]
}

extension TupleLoss {
    /// Adds every term of a batch, anchor by anchor.
    func addTerms(of table: SquareTable, _ labels: [Int], to terms: inout LossTally) {
        let all = labels.indices.map { neighbours(of: $0, table, labels) }
        for anchor in all {
            switch configuration.name {
            case .batchAll:
                for p in anchor.near { for n in anchor.far { terms.add(term(p - n)) } }
            case .triplet, .dotTriplet:
                for p in anchor.near {
                    for n in anchor.far { terms.add(term(p - n) + lack(of: 1 - p)) }
                }
            case .batchHard:
                let far = anchor.far.min()
                terms.add(far.map { term((anchor.near.max() ?? 0) - $0) } ?? 0)
            case .batchHard000:
                let near = anchor.near.max() ?? 0
                terms.add(term(near - (anchor.far.min() ?? near)))
            case .semiHard, .tfBatchSemiHard: addSemiHard(anchor, to: &terms)
            case .batchSample: terms.add(expectedTerm(anchor))
            case .weightedTriplet, .hap2sExponential, .hap2sPolynomial:
                terms.add(pointToSetTerm(anchor))
            case .lifted:
                for (place, other) in anchor.nearRows.enumerated() {
                    let sum = (anchor.far + all[other].far).reduce(0) { $0 + exp(number - $1) }
                    let excess = sum == 0 ? 0 : max(anchor.near[place] + log(sum), 0)
                    terms.add(excess * excess / 2)
                }
            case .generalizedLifted:
                let near = anchor.near.reduce(0) { $0 + exp($1) }
                let far = anchor.far.reduce(0) { $0 + exp(number - $1) }
                terms.add(near == 0 || far == 0 ? 0 : max(log(near) + log(far), 0))
            case .multiSimilarity, .circle, .supervisedContrastive, .ntXent:
                addSimilarityTerms(anchor, to: &terms)
            case .softmax, .normalizedSoftmax, .arcface, .cosface, .proxyAnchor, .center:
                preconditionFailure("\(configuration.name.rawValue) compares no images")
            }
        }
    }

    private func neighbours(
        of row: Int, _ table: SquareTable, _ labels: [Int]
    ) -> Neighbours {
        var nearRows = labels.indices.filter { $0 != row && labels[$0] == labels[row] }
        var far = labels.indices.filter { labels[$0] != labels[row] }.map { table[row, $0] }
        if configuration.miner == .multiSimilarity {
            let minerEpsilon = configuration.minerEpsilon
            let farthest = nearRows.map { table[row, $0] }.max() ?? -.infinity
            let nearest = far.min() ?? .infinity
            nearRows = nearRows.filter { table[row, $0] + minerEpsilon > nearest }
            far = far.filter { $0 - minerEpsilon < farthest }
        }
        return Neighbours(near: nearRows.map { table[row, $0] }, nearRows: nearRows, far: far)
    }

    /// The margin of losses that need a number.
    private var number: Double {
        if case .number(let value) = configuration.margin { return value }
        return 0
    }

    private func term(_ difference: Double) -> Double {
        switch configuration.margin {
        case .number(let margin): max(difference + margin, 0)
        case .soft: softplus(difference)
        case .none: difference
        }
    }

    /// What the similarity of a positive pair lacks of dot_triplet's threshold.
    private func lack(of similarity: Double) -> Double {
        guard configuration.name == .dotTriplet, configuration.positiveThreshold > -1 else {
            return 0
        }
        return max(configuration.positiveThreshold - similarity, 0)
    }

    /// log(1 + e^x) without overflow.
    private func softplus(_ x: Double) -> Double { max(x, 0) + log1p(exp(-abs(x))) }

    private func addSemiHard(_ anchor: Neighbours, to terms: inout LossTally) {
        if anchor.far.isEmpty, configuration.name == .semiHard { return }
        for p in anchor.near {
            let beyond = anchor.far.filter { $0 > p }.min()
            terms.add(term(p - (beyond ?? anchor.far.max() ?? 0)))
        }
    }

    private func expectedTerm(_ anchor: Neighbours) -> Double {
        guard let nearest = anchor.far.min() else { return 0 }
        let farthest = anchor.near.max() ?? 0
        let near = anchor.near.isEmpty ? [0] : anchor.near
        let nearWeights = near.map { exp($0 - farthest) }
        let farWeights = anchor.far.map { exp(nearest - $0) }
        var sum = 0.0
        for (p, nearWeight) in zip(near, nearWeights) {
            for (n, farWeight) in zip(anchor.far, farWeights) {
                sum += nearWeight * farWeight * term(p - n)
            }
        }
        return sum / (nearWeights.reduce(0, +) * farWeights.reduce(0, +))
    }

    private func pointToSetTerm(_ anchor: Neighbours) -> Double {
        let isCompatible =
            configuration.hap2sCompatibility && configuration.name != .weightedTriplet
        if anchor.far.isEmpty, !isCompatible { return 0 }
        func mean(_ distances: [Double], sign: Double) -> Double {
            guard !distances.isEmpty else { return 0 }
            let logWeights = distances.map { distance in
                switch configuration.name {
                case .hap2sPolynomial:
                    configuration.hap2sAlpha * (sign > 0 ? 1 : -2)
                        * log(isCompatible ? min(1 + distance, 100) : 1 + distance)
                case .hap2sExponential:
                    isCompatible
                        ? min(sign * distance / configuration.hap2sSigma, 50)
                        : sign * distance / configuration.hap2sSigma
                default: sign * distance
                }
            }
            let shift = isCompatible ? 0 : logWeights.max()!
            let weights = logWeights.map { exp($0 - shift) }
            return zip(weights, distances).reduce(0) { $0 + $1.0 * $1.1 }
                / (weights.reduce(0, +) + (isCompatible ? 1e-6 : 0))
        }
        return term(mean(anchor.near, sign: 1) - mean(anchor.far, sign: -1))
    }

    private func addSimilarityTerms(_ anchor: Neighbours, to terms: inout LossTally) {
        let near = anchor.near.map { 1 - $0 }
        let far = anchor.far.map { 1 - $0 }
        func logSum(_ logits: [Double]) -> Double {
            guard let largest = logits.max() else { return -.infinity }
            return largest + log(logits.reduce(0) { $0 + exp($1 - largest) })
        }
        switch configuration.name {
        case .multiSimilarity:
            let (alpha, beta) = (
                configuration.multiSimilarityAlpha, configuration.multiSimilarityBeta
            )
            let base = configuration.multiSimilarityBase
            terms.add(
                logSum([0] + near.map { -alpha * ($0 - base) }) / alpha
                    + logSum([0] + far.map { beta * ($0 - base) }) / beta)
        case .circle:
            guard !near.isEmpty, !far.isEmpty else { return terms.add(0) }
            let gamma = configuration.circleGamma
            let pulls = near.map { -gamma * max(1 + number - $0, 0) * ($0 - 1 + number) }
            let pushes = far.map { gamma * max($0 + number, 0) * ($0 - number) }
            terms.add(softplus(logSum(pulls) + logSum(pushes)))
        case .supervisedContrastive:
            guard !near.isEmpty else { return terms.add(0) }
            let all = logSum((near + far).map { $0 / configuration.temperature })
            terms.add(
                near.reduce(0) { $0 + all - $1 / configuration.temperature } / Double(near.count))
        default:
            for similarity in near {
                let own = similarity / configuration.temperature
                terms.add(logSum([own] + far.map { $0 / configuration.temperature }) - own)
            }
        }
    }
}
