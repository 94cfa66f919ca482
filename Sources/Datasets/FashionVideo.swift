import Basics
import Foundation
import Images

/// Makes a video data set of photographed garments in the layout of ILSVRC2015 VID.
///
/// Every snippet shows three to six articles over a textured background. They form groups of two
/// or more of one category, so that every article has another of its kind beside it. They move,
/// turn by up to 25 degrees to either side, change size by up to 25 % and light by up to 30 %, and
/// pass in front of one another. `train` shows photographs of Fashion-MNIST's training part, `val`
/// those of its test part; no photograph appears twice before all of its category were used.
///
/// All files are a pure function of the options but for the number of threads.
public struct FashionVideo: Sendable {
    /// What to make.
    public struct Options: Sendable, Equatable {
        /// Snippets below `train`.
        public var trainSnippets: Int
        /// Snippets below `val`.
        public var valSnippets: Int
        /// Frames in each snippet.
        public var frames: Int
        /// Seed of every choice.
        public var seed: UInt64
        /// Columns of a frame.
        public var width: Int
        /// Rows of a frame.
        public var height: Int
        /// Folder of the photographs; nil searches the usual places.
        public var source: String?
        /// Threads; nil takes one a core.
        public var threads: Int?
        /// Shows no progress.
        public var isQuiet: Bool

        /// Names every part.
        public init(
            trainSnippets: Int = 60, valSnippets: Int = 20, frames: Int = 12, seed: UInt64 = 1,
            width: Int = 400, height: Int = 300, source: String? = nil, threads: Int? = nil,
            isQuiet: Bool = false
        ) {
            self.trainSnippets = trainSnippets
            self.valSnippets = valSnippets
            self.frames = frames
            self.seed = seed
            self.width = width
            self.height = height
            self.source = source
            self.threads = threads
            self.isQuiet = isQuiet
        }
    }

    /// What was made.
    public struct Report: Sendable, Equatable {
        /// Snippets in both splits.
        public var snippets: Int
        /// Frames in all snippets.
        public var frames: Int
        /// Frames that an earlier run had made.
        public var keptFrames: Int
        /// Articles in all snippets.
        public var articles: Int
        /// Where the photographs came from.
        public var source: String
    }

    private let options: Options

    /// Checks the options.
    ///
    /// - Throws: ``DatasetError`` with code `invalidSetting` naming the option.
    public init(_ options: Options) throws(DatasetError) {
        for (name, value, range) in [
            ("--train-snippets", options.trainSnippets, 0...1_000_000),
            ("--val-snippets", options.valSnippets, 0...1_000_000),
            ("--frames", options.frames, 2...100_000),
            ("--width", options.width, 200...4096), ("--height", options.height, 200...4096),
            ("--threads", options.threads ?? 1, 1...1024),
        ] where !range.contains(value) {
            throw DatasetError(
                .invalidSetting,
                "\(name) is \(value); expected \(range.lowerBound) to \(range.upperBound)")
        }
        guard options.trainSnippets + options.valSnippets > 0 else {
            throw DatasetError(
                .invalidSetting, "--train-snippets and --val-snippets are both 0; nothing to make")
        }
        self.options = options
    }

    /// Makes the data set below `folder`; frames that an earlier run completed are kept.
    ///
    /// - Throws: ``DatasetError`` when the photographs are missing or damaged, or when the folder
    ///   holds a set that was made with other options.
    public func make(in folder: String) throws(DatasetError) -> Report {
        let source = try PhotographArchive.locate(source: options.source)
        let lock = try FolderLock(folder)
        defer { withExtendedLifetime(lock) {} }
        try claim(folder)
        let archives = [
            try PhotographArchive(folder: source, prefix: "train"),
            try PhotographArchive(folder: source, prefix: "t10k"),
        ]
        for archive in archives {
            try archive.checkEveryCategory(has: FashionPlan.groupMax, folder: source)
        }
        let plans = FashionPlan.make(options, labels: archives.map(\.labels))
        let meter = ProgressMeter(
            "fashion-vid", total: plans.count * options.frames, unit: "frames",
            isQuiet: options.isQuiet)
        let options = options
        let kept = try ParallelWork.map(
            count: plans.count, threads: options.threads ?? ParallelWork.defaultThreadCount
        ) { (index) throws(DatasetError) in
            let plan = plans[index]
            return try Self.render(
                plan, options, archives[plan.isValidation ? 1 : 0], below: folder, meter)
        }
        meter.finish()
        return Report(
            snippets: plans.count, frames: plans.count * options.frames,
            keptFrames: kept.reduce(0, +), articles: plans.reduce(0) { $0 + $1.articles.count },
            source: source)
    }

    /// Writes the frames of one snippet and returns how many were there.
    private static func render(
        _ plan: FashionPlan, _ options: Options, _ archive: PhotographArchive,
        below folder: String, _ meter: ProgressMeter
    ) throws(DatasetError) -> Int {
        let data = "\(folder)/Data/VID/\(plan.folder)"
        let annotations = "\(folder)/Annotations/VID/\(plan.folder)"
        let missing = (0..<options.frames).filter { frame in
            let name = fileName(frame)
            return !isComplete("\(data)/\(name).JPEG", ending: [0xFF, 0xD9])
                || !isComplete(
                    "\(annotations)/\(name).xml", ending: Array("</annotation>\n".utf8))
        }
        let kept = options.frames - missing.count
        if kept > 0 { meter.advance(by: kept, skipped: kept) }
        guard !missing.isEmpty else { return kept }
        try FolderLock.makeFolder(data)
        try FolderLock.makeFolder(annotations)
        let scene = FashionScene(plan, options, archive)
        for frame in missing {
            let (image, objects) = scene.frame(frame)
            let name = fileName(frame)
            let annotation = xml(plan, name: name, image: image, objects)
            try imaging { () throws(ImageError) in
                let bytes = try JPEG.encode(image, quality: 92)
                try FileBytes.writeAtomically(bytes, to: "\(data)/\(name).JPEG")
                try FileBytes.writeAtomically(
                    Array(annotation.utf8), to: "\(annotations)/\(name).xml")
            }
            meter.advance()
        }
        return kept
    }

    private static func fileName(_ frame: Int) -> String { String(format: "%06d", frame) }

    /// Whether a file is there and has its last bytes, which a power cut may have taken.
    private static func isComplete(_ path: String, ending: [UInt8]) -> Bool {
        guard let file = FileHandle(forReadingAtPath: path) else { return false }
        defer { try? file.close() }
        guard let size = try? file.seekToEnd(), size > ending.count,
            (try? file.seek(toOffset: size - UInt64(ending.count))) != nil,
            let tail = try? file.read(upToCount: ending.count)
        else { return false }
        return Array(tail) == ending
    }

    private static func xml(
        _ plan: FashionPlan, name: String, image: PixelImage, _ objects: [FashionScene.Object]
    ) -> String {
        var text = """
            <annotation>
            \t<folder>\(plan.folder)</folder>
            \t<filename>\(name)</filename>
            \t<source>
            \t\t<database>lineup fashion-vid</database>
            \t</source>
            \t<size>
            \t\t<width>\(image.width)</width>
            \t\t<height>\(image.height)</height>
            \t</size>

            """
        for object in objects {
            text += """
                \t<object>
                \t\t<trackid>\(object.track)</trackid>
                \t\t<name>\(object.category)</name>
                \t\t<bndbox>
                \t\t\t<xmax>\(object.box.xmax)</xmax>
                \t\t\t<xmin>\(object.box.xmin)</xmin>
                \t\t\t<ymax>\(object.box.ymax)</ymax>
                \t\t\t<ymin>\(object.box.ymin)</ymin>
                \t\t</bndbox>
                \t\t<occluded>\(object.occluded ? 1 : 0)</occluded>
                \t\t<generated>0</generated>
                \t</object>

                """
        }
        return text + "</annotation>\n"
    }

    /// Writes what the folder holds, or refuses when it holds something else.
    private func claim(_ folder: String) throws(DatasetError) {
        let path = "\(folder)/fashion-vid.json"
        let text = """
            {
              "format": "ILSVRC2015 VID",
              "frames": \(options.frames),
              "generator": \(FashionScene.version),
              "height": \(options.height),
              "seed": \(options.seed),
              "train_snippets": \(options.trainSnippets),
              "val_snippets": \(options.valSnippets),
              "width": \(options.width)
            }

            """
        guard FileManager.default.fileExists(atPath: path) else {
            guard try FolderLock.names(in: folder).isEmpty else {
                throw DatasetError(
                    .occupied,
                    "folder \(folder) is not empty and holds no fashion-vid data set; "
                        + "name a new folder")
            }
            return try imaging { () throws(ImageError) in
                try FileBytes.writeAtomically(text, to: path)
            }
        }
        let found = try imaging { () throws(ImageError) in try FileBytes.read(path) }
        guard found == Array(text.utf8) else {
            let lines = String(decoding: found, as: UTF8.self).split(separator: "\n")
            let differing = zip(lines, text.split(separator: "\n")).first { $0 != $1 }
            throw DatasetError(
                .occupied,
                "\(folder) holds a data set made with other options ("
                    + (differing.map { "it has \(Self.plain($0.0)), asked is \(Self.plain($0.1))" }
                        ?? "fashion-vid.json differs")
                    + "); name a new folder or remove this one")
        }
    }

    private static func plain(_ line: Substring) -> String {
        line.filter { $0 != "\"" && $0 != "," }.trimmingCharacters(in: .whitespaces)
    }
}
