public import Scoring

/// Turns batches of decoded images into embeddings with one set of weights.
///
/// Any number of threads may embed at once. A row's embedding depends on that image, its place in
/// the batch and the batch's size alone.
public protocol BatchEmbedding: Sendable {
    /// Numbers an embedding has.
    var dimension: Int { get }

    /// The vectors of the identities that are trained on, `[identities, dimension]`; nil where there
    /// are none.
    var classes: EmbeddingMatrix? { get }

    /// Embeds one batch.
    ///
    /// - Parameters:
    ///   - images: `[count, 3, height, width]`, contiguous; not changed.
    /// - Returns: row-major `[count, dimension]`.
    func embed(_ images: UnsafeMutableBufferPointer<Float>, count: Int) throws -> [Float]
}

extension BatchEmbedding {
    /// None: images are compared with one another alone.
    public var classes: EmbeddingMatrix? { nil }
}

/// Pixels as they are: the nearest-neighbour baseline that a network has to beat.
public struct PixelEmbedding: BatchEmbedding {
    /// Floats of one image.
    public let dimension: Int

    /// Takes images of this many floats.
    public init(elementCount: Int) { dimension = elementCount }

    /// Copies the images.
    public func embed(_ images: UnsafeMutableBufferPointer<Float>, count: Int) -> [Float] {
        Array(images[..<(count * dimension)])
    }
}

/// The distinct images of an evaluation set, decoded to network inputs.
public protocol ImageSource: Sendable {
    /// Number of images.
    var count: Int { get }
    /// Floats of one decoded image.
    var elementCount: Int { get }

    /// Decodes an image; any number of threads may call.
    func load(_ index: Int, into target: UnsafeMutableBufferPointer<Float>) throws

    /// What names the image among all sets; equal keys mean equal contents.
    func key(_ index: Int) -> String
}
