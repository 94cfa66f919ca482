/// The metrics of an evaluation set, under the names that the ledger uses.
///
/// `docs/metrics.md` defines each with its formula and source.
public enum MetricName: String, CaseIterable, Codable, Hashable, Sendable {
    /// Share of tuples whose positive is strictly nearer to the anchor than every negative.
    case generalAccuracy = "general_accuracy"
    /// Mean over tuples of the share of negatives strictly farther than the positive.
    case easyAccuracy = "easy_accuracy"
    /// As ``generalAccuracy`` with ties counted as success, the earlier code's reading.
    case generalAccuracyTies = "general_accuracy_ties"
    /// As ``easyAccuracy`` with ties counted as success, the earlier code's reading.
    case easyAccuracyTies = "easy_accuracy_ties"
    /// Mean over tuples of the ranks of anchor (0) and positive among all images, over two: 0.5 at best.
    case averageRankingPosition = "average_ranking_position"
    /// Mean over tuples of the run's loss on the batch that the tuple forms.
    case meanLoss = "mean_loss"
    /// Mean over tuples of the share of the loss's terms that are active.
    case fractionPositive = "fraction_positive"
    /// Mean over tuples of the mean Euclidean norm of the tuple's embeddings.
    case embeddingMeanNorm = "embedding_mean_norm"
    /// Number of tuples that the means are over.
    case tuples = "tuples"
    /// Share of images whose own identity is the one that the network takes for the most probable.
    case top1 = "top1"
    /// Number of images that the means are over, in a set of images.
    case images = "images"
    /// Number of tuples left out because they have no negative.
    case skippedTuples = "skipped_tuples"

    /// Those of a set of tuples; a set of images has ``meanLoss``, ``top1`` and ``images``.
    public static let ofTuples = allCases.filter { $0 != .top1 && $0 != .images }
}
