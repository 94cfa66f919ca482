public import Basics
import Foundation

/// Scores images of identities that are trained on: how well the loss's own vectors tell them.
///
/// `mean_loss` is the cross-entropy of training (`softmax`, `normalized_softmax`, `arcface`,
/// `cosface`) with its margin, temperature and smoothing, written here a second time in plain loops;
/// `top1` the share of images to whose own identity's vector the embedding is strictly more similar
/// than to any other, without a margin. An embedding that is not finite is no success and makes
/// `mean_loss` NaN.
public struct IdentityScorer: Hashable, Sendable {
    /// What decides the loss.
    public let configuration: LossConfiguration

    /// Scores with the first loss of a sum that classifies; nil where none does.
    public init?(_ configuration: LossConfiguration) {
        guard let classifier = configuration.classifier else { return nil }
        self.configuration = classifier
    }

    /// The metrics of a set.
    ///
    /// - Parameters:
    ///   - embeddings: `[images, dimension]`.
    ///   - labels: each image's row in `classes`.
    ///   - classes: the identities' vectors, `[identities, dimension]`.
    /// - Returns: the metrics, and images whose embedding is not finite.
    /// - Throws: ``ScoringError`` with code `shapeMismatch` or `indexOutOfRange`.
    /// - Complexity: O(images · identities · dimension); memory of one row of similarities.
    public func score(
        _ embeddings: EmbeddingMatrix, labels: [Int], classes: EmbeddingMatrix
    ) throws(ScoringError) -> (metrics: [MetricName: Double], nonFinite: Int) {
        guard embeddings.rows == labels.count, embeddings.dimension == classes.dimension else {
            throw ScoringError(
                .shapeMismatch,
                "\(embeddings.rows) embeddings of \(embeddings.dimension) numbers for "
                    + "\(labels.count) images and vectors of \(classes.dimension)")
        }
        if let label = labels.first(where: { !(0..<classes.rows).contains($0) }) {
            throw ScoringError(
                .indexOutOfRange,
                "an image has identity \(label), but there are vectors for \(classes.rows)")
        }
        guard !labels.isEmpty else { return ([.images: 0], 0) }
        var tally = LossTally(threshold: configuration.activeThreshold)
        var (hits, broken) = (0, 0)
        let vectors = Rows(classes, areUnit: configuration.distance == .cosine)
        let images = Rows(
            embeddings,
            areUnit: configuration.distance == .cosine || configuration.normalization == .rows)
        for (image, label) in labels.enumerated() {
            let similarities = images.products(of: image, with: vectors)
            guard similarities.allSatisfy(\.isFinite) else {
                broken += 1
                continue
            }
            let own = similarities[label]
            let rivals = similarities.indices.filter { $0 != label && similarities[$0] >= own }
            if rivals.isEmpty { hits += 1 }
            tally.add(crossEntropy(similarities, label))
        }
        let metrics: [MetricName: Double] = [
            .meanLoss: broken > 0 ? .nan : tally.sum / configuration.reducer.divisor(of: tally),
            .top1: Double(hits) / Double(labels.count), .images: Double(labels.count),
        ]
        return (metrics, broken)
    }

    /// Of the target 1 - e for the own identity and e / C more for each of the C.
    private func crossEntropy(_ similarities: [Double], _ label: Int) -> Double {
        var logits = similarities
        logits[label] = ownSimilarity(logits[label])
        let scale =
            switch configuration.name {
            case .arcface, .cosface: configuration.scale
            default: 1 / configuration.temperature
            }
        for at in logits.indices { logits[at] *= scale }
        let largest = logits.max() ?? 0
        let all = largest + log(logits.reduce(0) { $0 + exp($1 - largest) })
        let mean = logits.reduce(0, +) / Double(logits.count)
        let smoothing = configuration.labelSmoothing
        return all - (1 - smoothing) * logits[label] - smoothing * mean
    }

    private func ownSimilarity(_ similarity: Double) -> Double {
        guard case .number(let margin) = configuration.margin else { return similarity }
        switch configuration.name {
        case .cosface: return similarity - margin
        case .arcface:
            let cosine = min(max(similarity, -1), 1)
            return cosine < -cos(margin)
                ? cosine - margin * sin(margin) : cos(acos(cosine) + margin)
        default: return similarity
        }
    }
}

/// The rows of a matrix with what each is multiplied with.
private struct Rows {
    let matrix: EmbeddingMatrix
    let factors: [Double]

    init(_ matrix: EmbeddingMatrix, areUnit: Bool) {
        self.matrix = matrix
        factors = (0..<matrix.rows).map { row in
            guard areUnit else { return 1 }
            let length = matrix.withRow(row) { norm($0) }
            return length == 0 ? 0 : 1 / length
        }
    }

    /// The inner products of one row with all rows of another matrix.
    func products(of row: Int, with others: Rows) -> [Double] {
        matrix.withRow(row) { own in
            (0..<others.matrix.rows).map { other in
                others.matrix.withRow(other) { product(own, $0) }
                    * (factors[row] * others.factors[other])
            }
        }
    }
}

extension EmbeddingMatrix {
    fileprivate func withRow<Result>(
        _ row: Int, _ body: (UnsafeBufferPointer<Float>) -> Result
    ) -> Result {
        values.withUnsafeBufferPointer {
            body(UnsafeBufferPointer(rebasing: $0[row * dimension..<(row + 1) * dimension]))
        }
    }
}
