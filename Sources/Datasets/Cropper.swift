import Basics
import Foundation
package import Images

/// Cuts every annotated object out of a video data set, as square crops of one size.
///
/// For a box of w x h pixels the square has the side s = sqrt((w + c(w+h)) * (h + c(w+h))) with
/// context c, rounded half to even, about the box's centre. What lies outside the frame gets the
/// frame's mean colour. The square is resized bilinearly and written as JPEG.
///
/// Crops are `Data/VID/train/{a,b,c,d}/<snippet>/<frame>.<track>.crop.x.jpg` for the four training
/// folders and `Data/VID/val/e/...` for validation. Beside them lie `catalogue.csv`,
/// `sequences.csv` (frames without, with one and with several objects) and `dataset.json`.
public struct Cropper: Sendable {
    /// What to cut and how.
    public struct Options: Sendable, Equatable {
        /// Folder that holds `Data/VID` and `Annotations/VID`.
        public var source: String
        /// Folder for the crops.
        public var output: String
        /// Margin around a box as a share of its half perimeter.
        public var context: Double
        /// Pixels along a crop's side.
        public var side: Int
        /// JPEG quality.
        public var quality: Int
        /// Threads; nil takes one a core.
        public var threads: Int?
        /// Shows no progress.
        public var isQuiet: Bool

        /// Names every part.
        public init(
            source: String, output: String, context: Double = 0.01, side: Int = 255,
            quality: Int = 90, threads: Int? = nil, isQuiet: Bool = false
        ) {
            self.source = source
            self.output = output
            self.context = context
            self.side = side
            self.quality = quality
            self.threads = threads
            self.isQuiet = isQuiet
        }
    }

    /// What was cut.
    public struct Report: Sendable, Equatable {
        /// Snippets of the source.
        public var snippets: Int
        /// Frames of the source.
        public var frames: Int
        /// Crops in the catalogue.
        public var crops: Int
        /// Crops that an earlier run had made.
        public var keptCrops: Int
        /// Whether evaluation sets had to be dropped because the crops changed.
        public var droppedSets: Bool
        /// Whether everything was there already.
        public var wasComplete: Bool
    }

    private let options: Options

    /// Checks the options.
    ///
    /// - Throws: ``DatasetError`` with code `invalidSetting` naming the option.
    public init(_ options: Options) throws(DatasetError) {
        for (name, value, range) in [
            ("--side", options.side, 8...4096), ("--quality", options.quality, 1...100),
            ("--threads", options.threads ?? 1, 1...1024),
        ] where !range.contains(value) {
            throw DatasetError(
                .invalidSetting,
                "\(name) is \(value); expected \(range.lowerBound) to \(range.upperBound)")
        }
        guard (0...10).contains(options.context) else {
            throw DatasetError(
                .invalidSetting, "--context is \(options.context); expected 0 to 10")
        }
        self.options = options
    }

    /// Cuts all crops; snippets that an earlier run completed from the same source are kept.
    ///
    /// - Throws: ``DatasetError`` naming the first frame or annotation that is missing or damaged.
    public func run() throws(DatasetError) -> Report {
        let layout = try VIDLayout(Self.absolute(options.source))
        let output = Self.absolute(options.output)
        let lock = try FolderLock(output)
        defer { withExtendedLifetime(lock) {} }
        let workplace = Workplace(output)
        let before = try workplace.finished()
        let threads = options.threads ?? ParallelWork.defaultThreadCount
        let options = options

        let listed = try ParallelWork.map(count: layout.snippets.count, threads: threads) {
            (index) throws(DatasetError) in
            try Listing(layout.snippets[index], options)
        }
        let meter = ProgressMeter(
            "crop", total: listed.reduce(0) { $0 + $1.frames.count }, unit: "frames",
            isQuiet: options.isQuiet)
        let parts = try ParallelWork.map(count: listed.count, threads: threads) {
            (index) throws(DatasetError) -> Part in
            let listing = listed[index]
            let known =
                before?.parts[listing.snippet.sequence]
                ?? workplace.part(of: listing.snippet)
            if let known, known.summary.fingerprint == listing.fingerprint,
                workplace.holds(known.samples)
            {
                meter.advance(by: listing.frames.count, skipped: listing.frames.count)
                var kept = known
                kept.wasKept = true
                return kept
            }
            let part = try Self.crop(listing, options, into: output, meter)
            try workplace.store(part, of: listing.snippet)
            return part
        }
        meter.finish()
        return try finish(parts, layout, output, workplace, before)
    }

    /// Writes the catalogue from the parts, unless it says the same already.
    private func finish(
        _ parts: [Part], _ layout: VIDLayout, _ output: String, _ workplace: Workplace,
        _ before: Workplace.Finished?
    ) throws(DatasetError) -> Report {
        let samples = parts.flatMap(\.samples)
        let kept = parts.reduce(0) { $0 + ($1.wasKept ? $1.samples.count : 0) }
        var report = Report(
            snippets: parts.count, frames: parts.reduce(0) { $0 + $1.summary.frames },
            crops: samples.count, keptCrops: kept, droppedSets: false, wasComplete: false)
        if let before, before.order == parts.map(\.summary.sequence), kept == samples.count,
            parts.allSatisfy(\.wasKept)
        {
            report.wasComplete = true
            if before.manifest.source != layout.root {
                var manifest = before.manifest
                manifest.source = layout.root
                try manifest.write(to: output)
            }
            return report
        }
        report.droppedSets = before?.manifest.sets.isEmpty == false
        let catalogue = try Catalogue(root: output, samples: samples)
        var counts: [String: Int] = ["frames": report.frames]
        for split in ["train", "val"] {
            counts["\(split)_snippets"] = parts.count { $0.summary.split == split }
            counts["\(split)_images"] = samples.count { $0.split == split }
            counts["\(split)_identities"] =
                catalogue.identities(split: split, includingOccluded: true).count
        }
        try imaging { () throws(ImageError) in
            try FileBytes.writeAtomically(
                SequenceSummary.text(parts.map(\.summary)),
                to: "\(output)/\(SequenceSummary.fileName)")
        }
        try catalogue.write(to: output)
        let manifest = DataSetManifest(
            kind: "vid-crops", source: layout.root, counts: counts,
            crop: .init(
                context: options.context, side: options.side, quality: options.quality),
            catalogueDigest: catalogue.digest)
        try manifest.write(to: output)
        workplace.clear()
        return report
    }

    // MARK: - One snippet

    /// A snippet's rows.
    struct Part: Sendable {
        var summary: SequenceSummary
        var samples: [Sample]
        var wasKept = false
    }

    /// A snippet's frames with the sizes of their files.
    private struct Listing: Sendable {
        var snippet: VIDSnippet
        var frames: [String]
        var fingerprint: UInt64

        init(_ snippet: VIDSnippet, _ options: Options) throws(DatasetError) {
            self.snippet = snippet
            let images = try FolderLock.names(in: snippet.data)
            let texts = try FolderLock.names(in: snippet.annotations)
            frames = try texts.map { (name) throws(DatasetError) in
                guard name.hasSuffix(".xml"), Int(name.dropLast(4)) != nil else {
                    throw DatasetError(
                        .malformed,
                        "\(snippet.annotations)/\(name) is not named like an annotation; "
                            + "expected NNNNNN.xml")
                }
                return String(name.dropLast(4))
            }
            let pairs = Set(frames)
            for name in images where !(name.hasSuffix(".JPEG") && pairs.contains(stem(name))) {
                throw DatasetError(
                    .inconsistent,
                    "\(snippet.data)/\(name) has no annotation; expected "
                        + "\(snippet.annotations)/\(stem(name)).xml beside a .JPEG")
            }
            let there = Set(images)
            for frame in frames where !there.contains("\(frame).JPEG") {
                throw DatasetError(
                    .missing,
                    "\(snippet.data)/\(frame).JPEG is missing; "
                        + "\(snippet.annotations)/\(frame).xml annotates it")
            }
            var hash = XXH64()
            hash.update("\(options.context) \(options.side) \(options.quality)\n")
            for frame in frames {
                hash.update(frame)
                hash.update(UInt64(FileBytes.size("\(snippet.data)/\(frame).JPEG") ?? 0))
                hash.update(UInt64(FileBytes.size("\(snippet.annotations)/\(frame).xml") ?? 0))
            }
            fingerprint = hash.finish()
        }
    }

    private static func crop(
        _ listing: Listing, _ options: Options, into output: String, _ meter: ProgressMeter
    ) throws(DatasetError) -> Part {
        let snippet = listing.snippet
        let folder =
            "Data/VID/\(snippet.split == "val" ? "val" : "train")/\(snippet.letter)/\(snippet.name)"
        try FolderLock.makeFolder("\(output)/\(folder)")
        var summary = SequenceSummary(
            sequence: snippet.sequence, split: snippet.split, missing: 0, single: 0, multiple: 0,
            fingerprint: listing.fingerprint)
        var samples: [Sample] = []
        for frame in listing.frames {
            let path = "\(snippet.annotations)/\(frame).xml"
            let bytes = try imaging { () throws(ImageError) in try FileBytes.read(path) }
            let annotation = try FrameAnnotation(parsing: bytes, name: path)
            try check(annotation, frame: frame, name: path)
            switch annotation.objects.count {
            case 0: summary.missing += 1
            case 1: summary.single += 1
            default: summary.multiple += 1
            }
            if !annotation.objects.isEmpty {
                let image = try imaging { () throws(ImageError) in
                    try JPEG.read("\(snippet.data)/\(frame).JPEG")
                }
                try check(annotation, image, name: path)
                let fill = image.meanColour
                for object in annotation.objects {
                    let track = String(format: "%02d", object.track)
                    let cropPath = "\(folder)/\(frame).\(track).crop.x.jpg"
                    let jpeg = try imaging { () throws(ImageError) in
                        let crop = crop(
                            object.box, of: image, context: options.context, side: options.side,
                            fill: fill)
                        let jpeg = try JPEG.encode(crop, quality: options.quality)
                        try FileBytes.writeAtomically(jpeg, to: "\(output)/\(cropPath)")
                        return jpeg
                    }
                    let print = ImageFingerprint(of: jpeg)
                    samples.append(
                        Sample(
                            path: cropPath, identity: "\(snippet.sequence)/\(track)",
                            split: snippet.split, sequence: snippet.sequence, frame: Int(frame),
                            track: object.track, category: object.category, box: object.box,
                            role: "object", occluded: object.occluded,
                            byteCount: print.byteCount, digest: print.digest))
                }
            }
            meter.advance()
        }
        return Part(summary: summary, samples: samples)
    }

    /// The square about a box at a size of `side`; outside the picture it has its mean colour.
    package static func crop(
        _ box: Box, of image: PixelImage, context: Double, side: Int,
        fill: (red: UInt8, green: UInt8, blue: UInt8)? = nil
    ) -> PixelImage {
        let square = CropSquare(box, context: context)
        return image.cropped(
            left: square.left, top: square.top, width: square.side, height: square.side,
            fill: fill ?? image.meanColour
        ).resized(width: side, height: side)
    }

    private static func check(
        _ annotation: FrameAnnotation, frame: String, name: String
    ) throws(DatasetError) {
        guard stem(annotation.fileName) == frame else {
            throw DatasetError(
                .inconsistent,
                "\(name): <filename> is '\(annotation.fileName)'; expected '\(frame)'")
        }
        var tracks: Set<Int> = []
        for object in annotation.objects where !tracks.insert(object.track).inserted {
            throw DatasetError(
                .malformed,
                "\(name): <trackid> \(object.track) is there twice; an object is in a frame once")
        }
    }

    private static func check(
        _ annotation: FrameAnnotation, _ image: PixelImage, name: String
    ) throws(DatasetError) {
        guard annotation.width ?? image.width == image.width,
            annotation.height ?? image.height == image.height
        else {
            throw DatasetError(
                .inconsistent,
                "\(name): <size> is \(annotation.width ?? 0)x\(annotation.height ?? 0), the frame "
                    + "is \(image.width)x\(image.height)")
        }
        guard image.width > 2, image.height > 2 else {
            throw DatasetError(
                .malformed,
                "\(name): the frame is \(image.width)x\(image.height); expected more than 2 "
                    + "pixels a side")
        }
        for object in annotation.objects {
            let side = CropSquare(object.box, context: 0).side
            guard side <= 4 * max(image.width, image.height) else {
                throw DatasetError(
                    .malformed,
                    "\(name): the box of track \(object.track) is far larger than the frame of "
                        + "\(image.width)x\(image.height)")
            }
        }
    }

    static func absolute(_ path: String) -> String {
        URL(fileURLWithPath: path).standardizedFileURL.path
    }
}

/// A name without what follows its last dot.
private func stem(_ name: String) -> String {
    guard let dot = name.lastIndex(of: ".") else { return name }
    return String(name[..<dot])
}

/// The square that stands for a box.
package struct CropSquare: Equatable {
    package let left: Int
    package let top: Int
    package let side: Int

    package init(_ box: Box, context: Double) {
        let width = Double(box.xmax - box.xmin + 1)
        let height = Double(box.ymax - box.ymin + 1)
        let margin = context * (width + height)
        let exact = ((width + margin) * (height + margin)).squareRoot()
        side = max(Int(exact.rounded(.toNearestOrEven)), 1)
        let half = Double(side - 1) / 2
        let centreX = Double(box.xmin) + (width - 1) / 2
        let centreY = Double(box.ymin) + (height - 1) / 2
        left = Int((centreX - half).rounded(.toNearestOrEven))
        top = Int((centreY - half).rounded(.toNearestOrEven))
    }
}

/// What earlier runs left in the folder of crops.
private struct Workplace: Sendable {
    /// A catalogue that was completed.
    struct Finished: Sendable {
        var manifest: DataSetManifest
        var order: [String]
        var parts: [String: Cropper.Part]
    }

    private let output: String
    private var parts: String { "\(output)/.parts" }

    init(_ output: String) { self.output = output }

    /// The completed catalogue; nil when there is none, an error when the folder is something else.
    func finished() throws(DatasetError) -> Finished? {
        guard FileManager.default.fileExists(atPath: "\(output)/\(DataSetManifest.fileName)") else {
            return nil
        }
        let manifest = try DataSetManifest(loading: output)
        guard manifest.kind == "vid-crops" else {
            throw DatasetError(
                .occupied,
                "\(output) holds a data set of kind '\(manifest.kind)'; name another folder")
        }
        let path = "\(output)/\(SequenceSummary.fileName)"
        let bytes = try imaging { () throws(ImageError) in try FileBytes.read(path) }
        let rows = try SequenceSummary.parse(bytes, name: path)
        var found: [String: Cropper.Part] = [:]
        for row in rows { found[row.sequence] = Cropper.Part(summary: row, samples: []) }
        for sample in try Catalogue(loading: output).samples where sample.role == "object" {
            found[sample.sequence]?.samples.append(sample)
        }
        return Finished(manifest: manifest, order: rows.map(\.sequence), parts: found)
    }

    /// A snippet that an interrupted run completed; nil when it did not or its record is damaged.
    func part(of snippet: VIDSnippet) -> Cropper.Part? {
        guard let rows = try? FileBytes.read(path(snippet, "summary")),
            let summary = try? SequenceSummary.parse(rows, name: "").first,
            let bytes = try? FileBytes.read(path(snippet, "samples")),
            let samples = try? Catalogue.parse(bytes, name: "")
        else { return nil }
        return Cropper.Part(summary: summary, samples: samples)
    }

    /// Records a completed snippet: the samples first, so that a summary stands for both.
    func store(_ part: Cropper.Part, of snippet: VIDSnippet) throws(DatasetError) {
        try FolderLock.makeFolder(parts)
        try imaging { () throws(ImageError) in
            try FileBytes.writeAtomically(
                Catalogue.text(part.samples), to: path(snippet, "samples"))
            try FileBytes.writeAtomically(
                SequenceSummary.text([part.summary]), to: path(snippet, "summary"))
        }
    }

    /// Whether every file is there in its size.
    func holds(_ samples: [Sample]) -> Bool {
        samples.allSatisfy { FileBytes.size("\(output)/\($0.path)") == $0.byteCount }
    }

    func clear() {
        try? FileManager.default.removeItem(atPath: parts)
    }

    private func path(_ snippet: VIDSnippet, _ what: String) -> String {
        "\(parts)/\(snippet.letter)-\(snippet.name).\(what).csv"
    }
}
