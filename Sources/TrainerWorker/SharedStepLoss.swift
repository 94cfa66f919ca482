internal import MetricLearning
internal import Protocol
internal import Synchronization
internal import Training

/// The loss of a step, computed once, by the first slot that needs it; others wait for it.
final class SharedStepLoss: Sendable {
    private let embeddings: [Float]
    private let labels: [Int]
    private let result = Mutex<Result<StepLoss, any Error>?>(nil)
    private let compute: @Sendable ([Float], [Int]) throws -> StepLoss

    /// - Parameters:
    ///   - embeddings: row-major `[labels.count, dimension]`, all slots in slot order.
    ///   - labels: one identity for each row.
    init(
        embeddings: [Float], labels: [Int],
        _ compute: @escaping @Sendable ([Float], [Int]) throws -> StepLoss
    ) {
        self.embeddings = embeddings
        self.labels = labels
        self.compute = compute
    }

    func value() throws -> StepLoss {
        try result.withLock { result in
            let found = result ?? Result { try compute(embeddings, labels) }
            result = found
            return found
        }.get()
    }

    /// What the step's embeddings and losses look like.
    func summary() throws -> WireSlotSummary {
        WireSlotSummary(
            BatchSummary(
                embeddings: embeddings, labels: labels, rowLosses: try value().rowLosses))
    }
}
