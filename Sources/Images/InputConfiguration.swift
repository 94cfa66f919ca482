/// How bytes become the numbers a network sees.
public enum Normalisation: String, Sendable, Hashable, CaseIterable {
    /// 2 x / 255 - 1, to -1...1.
    case signed
    /// x / 255, to 0...1.
    case unit
    /// x / 255, less ImageNet's mean and over its standard deviation, by channel.
    case imagenet
    /// x - (123.68, 116.78, 103.94), by channel.
    case meanSubtracted = "mean_subtracted"

    /// Factor and offset of each channel: the result is x * factor + offset.
    var coefficients: (factor: [Float], offset: [Float]) {
        switch self {
        case .signed: ([Float](repeating: 2 / 255, count: 3), [-1, -1, -1])
        case .unit: ([Float](repeating: 1 / 255, count: 3), [0, 0, 0])
        case .imagenet:
            (
                [1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)],
                [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]
            )
        case .meanSubtracted: ([1, 1, 1], [-123.68, -116.78, -103.94])
        }
    }
}

/// What a network's input looks like and how training varies it.
public struct InputConfiguration: Sendable, Hashable {
    /// Rows of the input.
    public var height: Int
    /// Columns of the input.
    public var width: Int
    /// Whether training mirrors half of the images.
    public var flip: Bool
    /// Whether training cuts the input at random out of a larger resized image.
    public var crop: Bool
    /// Rows of that larger image.
    public var cropFromHeight: Int
    /// Columns of that larger image.
    public var cropFromWidth: Int
    /// What training covers of each image.
    public var occlusion: Occlusion
    /// The numbers that bytes become.
    public var normalisation: Normalisation
    /// How images are resized.
    public var kernel: ResizeKernel

    /// Names every part; without `crop` the larger size does not matter.
    public init(
        height: Int, width: Int, flip: Bool = false, crop: Bool = false, cropFromHeight: Int = 0,
        cropFromWidth: Int = 0, occlusion: Occlusion = Occlusion(),
        normalisation: Normalisation = .signed, kernel: ResizeKernel = .bilinear
    ) {
        self.height = height
        self.width = width
        self.flip = flip
        self.crop = crop
        self.cropFromHeight = cropFromHeight
        self.cropFromWidth = cropFromWidth
        self.occlusion = occlusion
        self.normalisation = normalisation
        self.kernel = kernel
    }

    /// Whether training sees the same of an image each time.
    public var isFixed: Bool { !flip && !crop && occlusion.isNone }

    /// Floats of one image: three planes.
    public var elementCount: Int { 3 * height * width }

    func check() throws(ImageError) {
        for (name, value) in [("input.height", height), ("input.width", width)]
        where !(1...JPEG.sideMax).contains(value) {
            throw ImageError(
                .invalidSize, "\(name) is \(value); expected 1 to \(JPEG.sideMax)")
        }
        guard crop else { return }
        for (name, value, least) in [
            ("augmentation.crop_from_height", cropFromHeight, height),
            ("augmentation.crop_from_width", cropFromWidth, width),
        ] where !(least...JPEG.sideMax).contains(value) {
            throw ImageError(
                .invalidSize,
                "\(name) is \(value); expected \(least) (the input's own size) "
                    + "to \(JPEG.sideMax)")
        }
    }
}
