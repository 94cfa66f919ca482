public import Images

/// A rectangle of whole pixels; all four borders belong to it.
public struct Box: Sendable, Hashable {
    /// First column.
    public var xmin: Int
    /// First row.
    public var ymin: Int
    /// Last column.
    public var xmax: Int
    /// Last row.
    public var ymax: Int

    /// Names the four borders.
    public init(xmin: Int, ymin: Int, xmax: Int, ymax: Int) {
        self.xmin = xmin
        self.ymin = ymin
        self.xmax = xmax
        self.ymax = ymax
    }

    /// Shared area over joint area, with areas (x2 - x1) * (y2 - y1) as the earlier tool has them.
    public func intersectionOverUnion(_ other: Box) -> Double {
        let width = min(xmax, other.xmax) - max(xmin, other.xmin)
        let height = min(ymax, other.ymax) - max(ymin, other.ymin)
        guard width > 0, height > 0 else { return 0 }
        let shared = Double(width * height)
        return shared / (area + other.area - shared)
    }

    private var area: Double { Double((xmax - xmin) * (ymax - ymin)) }
}

/// One image of a data set: where it is, what it shows and what its bytes are.
public struct Sample: Sendable, Hashable {
    /// Path relative to the data set's folder.
    public var path: String
    /// What the image shows an instance of; empty where that is unknown.
    public var identity: String
    /// Part of the data set: train, val, test, query ...
    public var split: String
    /// Camera, or empty.
    public var camera: String
    /// Video snippet or sequence, or empty.
    public var sequence: String
    /// Number of the frame in its sequence.
    public var frame: Int?
    /// Number of the object in its sequence.
    public var track: Int?
    /// Kind of object, or empty.
    public var category: String
    /// Where the object is in its frame.
    public var box: Box?
    /// What the image is for: `object`, `random_crop` ..., or empty.
    public var role: String
    /// Whether something covers the object.
    public var occluded: Bool?
    /// Size of the file.
    public var byteCount: Int
    /// XXH64 of the file's bytes.
    public var digest: UInt64

    /// Names every column; what is not known stays empty.
    public init(
        path: String, identity: String, split: String, camera: String = "", sequence: String = "",
        frame: Int? = nil, track: Int? = nil, category: String = "", box: Box? = nil,
        role: String = "", occluded: Bool? = nil, byteCount: Int, digest: UInt64
    ) {
        self.path = path
        self.identity = identity
        self.split = split
        self.camera = camera
        self.sequence = sequence
        self.frame = frame
        self.track = track
        self.category = category
        self.box = box
        self.role = role
        self.occluded = occluded
        self.byteCount = byteCount
        self.digest = digest
    }

    /// What a loader checks the file against.
    public var fingerprint: ImageFingerprint {
        ImageFingerprint(byteCount: byteCount, digest: digest)
    }
}
