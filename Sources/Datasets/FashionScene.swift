import Basics
import Foundation
import Images

/// One snippet's background and articles, ready to be drawn at any frame.
struct FashionScene {
    /// Raised when the same options begin to give other pictures.
    static let version = 2
    /// An article is `occluded` when others cover more than this share of its pixels.
    static let occludedShare = 0.2

    /// An article as it is annotated.
    struct Object: Sendable, Equatable {
        var track: Int
        var category: String
        var box: Box
        var occluded: Bool
    }

    private let options: FashionVideo.Options
    private let backdrop: Backdrop
    private let articles: [Article]
    private let plan: FashionPlan

    init(_ plan: FashionPlan, _ options: FashionVideo.Options, _ archive: PhotographArchive) {
        self.plan = plan
        self.options = options
        var random = CounterRandom(
            seed: options.seed, step: UInt64(plan.number), item: 3, purpose: .dataset)
        backdrop = Backdrop(width: options.width, height: options.height, &random)
        let places = Self.places(plan.articles.count, options, &random)
        let colours = (0..<PhotographArchive.categories.count).map { _ in Colour.cloth(&random) }
        articles = plan.articles.enumerated().map { track, article in
            Article(
                photograph: archive.photograph(article.photograph),
                colour: colours[article.category].varied(&random), place: places[track],
                frames: options.frames, &random)
        }
    }

    /// Draws a frame and says what is in it.
    func frame(_ frame: Int) -> (image: PixelImage, objects: [Object]) {
        let (width, height) = (options.width, options.height)
        var canvas = backdrop.view(at: Double(frame) / Double(options.frames))
        var owner = [Int8](repeating: -1, count: width * height)
        var drawn: [Article.Footprint] = []
        // Later tracks pass in front of earlier ones.
        for (track, article) in articles.enumerated() {
            drawn.append(
                article.draw(
                    at: frame, track: Int8(track), onto: &canvas, owner: &owner, width: width,
                    height: height))
        }
        var visible = [Int](repeating: 0, count: articles.count)
        for track in owner where track >= 0 { visible[Int(track)] += 1 }
        var objects: [Object] = []
        for (track, footprint) in drawn.enumerated() {
            guard let box = footprint.box else { continue }
            let covered = 1 - Double(visible[track]) / Double(footprint.pixels)
            objects.append(
                Object(
                    track: track,
                    category: PhotographArchive.categories[plan.articles[track].category],
                    box: box, occluded: covered > Self.occludedShare))
        }
        return (Self.image(canvas, width: width, height: height), objects)
    }

    /// Spreads the articles over the cells of a grid, so that they meet at times.
    private static func places(
        _ count: Int, _ options: FashionVideo.Options, _ random: inout CounterRandom
    ) -> [(x: Double, y: Double)] {
        var cells: [(x: Double, y: Double)] = []
        for row in 0..<2 {
            for column in 0..<3 {
                cells.append(
                    (
                        (Double(column) + 0.35 + 0.3 * random.uniform()) / 3,
                        (Double(row) + 0.35 + 0.3 * random.uniform()) / 2
                    ))
            }
        }
        random.shuffle(&cells)
        return cells.prefix(count).map {
            (
                (0.5 + 0.75 * ($0.x - 0.5)) * Double(options.width),
                (0.5 + 0.75 * ($0.y - 0.5)) * Double(options.height)
            )
        }
    }

    private static func image(_ canvas: [Float], width: Int, height: Int) -> PixelImage {
        let pixels = [UInt8](unsafeUninitializedCapacity: canvas.count) { bytes, count in
            canvas.withUnsafeBufferPointer { canvas in
                for place in 0..<canvas.count {
                    bytes[place] = UInt8(truncatingIfNeeded: Int32(min(max(canvas[place], 0), 255)))
                }
            }
            count = canvas.count
        }
        return PixelImage(width: width, height: height, pixels: pixels)
    }
}

/// A slow oscillation: `centre` plus `reach` times a sine over the snippet's time.
private struct Swing {
    var centre: Double
    var reach: Double
    var turns: Double
    var phase: Double

    init(centre: Double, reach: Double, _ random: inout CounterRandom) {
        self.centre = centre
        self.reach = reach
        turns = 0.6 + 0.9 * random.uniform()
        phase = random.uniform()
    }

    /// The value at a time in 0..<1.
    func at(_ time: Double) -> Double {
        centre + reach * sin(2 * .pi * (turns * time + phase))
    }
}

private struct Colour {
    var red: Float
    var green: Float
    var blue: Float

    /// A colour near this one: articles of one category resemble each other.
    func varied(_ random: inout CounterRandom) -> Colour {
        func channel(_ value: Float, _ random: inout CounterRandom) -> Float {
            value * (0.6 + 0.8 * Float(random.uniform()))
        }
        return Colour(
            red: channel(red, &random), green: channel(green, &random),
            blue: channel(blue, &random))
    }

    /// A muted colour such as cloth has.
    static func cloth(_ random: inout CounterRandom) -> Colour {
        func channel(_ random: inout CounterRandom) -> Float { 0.6 + 0.4 * Float(random.uniform()) }
        return Colour(red: channel(&random), green: channel(&random), blue: channel(&random))
    }
}

/// One photographed garment with its path through the snippet.
private struct Article {
    /// Pixels along the side of the enlarged photograph.
    private static let side = 112

    /// Where an article came to lie.
    struct Footprint {
        /// Smallest box around its pixels inside the frame, loosened; nil when none is inside.
        var box: Box?
        var pixels: Int
    }

    /// Opacity and brightness of each pixel of the enlarged photograph, both in 0...1.
    private let texture: [SIMD2<Float>]
    private let colour: Colour
    private let x: Swing
    private let y: Swing
    private let size: Swing
    private let turn: Swing
    private let squeeze: Swing
    private let light: Swing
    /// The light's own colour, by channel.
    private let tint: [Swing]
    private let slack: [(x: Double, y: Double, grow: Double)]
    private let frames: Int

    init(
        photograph: ArraySlice<UInt8>, colour: Colour, place: (x: Double, y: Double), frames: Int,
        _ random: inout CounterRandom
    ) {
        self.colour = colour
        self.frames = frames
        texture = Self.enlarge(Array(photograph))
        x = Swing(centre: place.x, reach: 85, &random)
        y = Swing(centre: place.y, reach: 60, &random)
        size = Swing(centre: 100 + 12 * (random.uniform() - 0.5), reach: 25, &random)
        turn = Swing(centre: 0, reach: 25 * .pi / 180, &random)
        squeeze = Swing(centre: 0.9, reach: 0.1, &random)
        light = Swing(centre: 1, reach: 0.3, &random)
        tint = (0..<3).map { _ in Swing(centre: 1, reach: 0.05, &random) }
        slack = (0..<frames).map { _ in
            (
                (random.uniform() - 0.5) * 0.2, (random.uniform() - 0.5) * 0.2,
                random.uniform() * 0.25
            )
        }
    }

    func draw(
        at frame: Int, track: Int8, onto canvas: inout [Float], owner: inout [Int8], width: Int,
        height: Int
    ) -> Footprint {
        let time = Double(frame) / Double(frames)
        // Most of an article stays in the frame.
        let cx = Float(min(max(x.at(time), 40), Double(width) - 40))
        let cy = Float(min(max(y.at(time), 40), Double(height) - 40))
        let scale = Float(size.at(time))
        let (sine, cosine) = (Float(sin(turn.at(time))), Float(cos(turn.at(time))))
        let narrow = Float(squeeze.at(time))
        let bright = 255 * Float(light.at(time))
        let gain = (
            bright * colour.red * Float(tint[0].at(time)),
            bright * colour.green * Float(tint[1].at(time)),
            bright * colour.blue * Float(tint[2].at(time))
        )
        let reach = Int(scale * 0.71) + 2
        let rows = max(Int(cy) - reach, 0)..<max(min(Int(cy) + reach, height), 0)
        let columns = max(Int(cx) - reach, 0)..<max(min(Int(cx) + reach, width), 0)
        let side = Float(Self.side)
        let last = side - 1
        let (alongX, acrossX) = (cosine / (scale * narrow) * side, -sine / scale * side)
        var (left, right, top, bottom) = (width, -1, height, -1)
        var pixels = 0
        texture.withUnsafeBufferPointer { texture in
            canvas.withUnsafeMutableBufferPointer { canvas in
                for row in rows {
                    let dy = Float(row) - cy
                    let rowU = (sine * dy / (scale * narrow) + 0.5) * side - 0.5
                    let rowV = (cosine * dy / scale + 0.5) * side - 0.5
                    for column in columns {
                        let dx = Float(column) - cx
                        let (u, v) = (rowU + alongX * dx, rowV + acrossX * dx)
                        guard u >= 0, v >= 0, u < last, v < last else { continue }
                        let (iu, iv) = (Int(u), Int(v))
                        let (fu, fv) = (u - Float(iu), v - Float(iv))
                        let place = iv * Self.side + iu
                        let upper = texture[place] + (texture[place + 1] - texture[place]) * fu
                        let below = place + Self.side
                        let lower = texture[below] + (texture[below + 1] - texture[below]) * fu
                        let value = upper + (lower - upper) * fv
                        let (alpha, shade) = (value.x, value.y)
                        guard alpha > 0 else { continue }
                        let at = (row * width + column) * 3
                        canvas[at] = mix(canvas[at], shade * gain.0, alpha)
                        canvas[at + 1] = mix(canvas[at + 1], shade * gain.1, alpha)
                        canvas[at + 2] = mix(canvas[at + 2], shade * gain.2, alpha)
                        guard alpha > 0.5 else { continue }
                        owner[row * width + column] = track
                        pixels += 1
                        (left, right) = (min(left, column), max(right, column))
                        (top, bottom) = (min(top, row), max(bottom, row))
                    }
                }
            }
        }
        guard right >= left else { return Footprint(box: nil, pixels: 0) }
        let box = Box(xmin: left, ymin: top, xmax: right, ymax: bottom)
        return Footprint(box: loosen(box, frame, width, height), pixels: pixels)
    }

    /// Shifts and widens a box as a hurried annotator would, inside the frame.
    private func loosen(_ box: Box, _ frame: Int, _ width: Int, _ height: Int) -> Box {
        let (wide, high) = (Double(box.xmax - box.xmin + 1), Double(box.ymax - box.ymin + 1))
        let (dx, dy) = (slack[frame].x * wide, slack[frame].y * high)
        let grow = slack[frame].grow / 2
        return Box(
            xmin: min(max(Int(Double(box.xmin) + dx - grow * wide), 0), width - 2),
            ymin: min(max(Int(Double(box.ymin) + dy - grow * high), 0), height - 2),
            xmax: max(min(Int(Double(box.xmax) + dx + grow * wide), width - 1), 1),
            ymax: max(min(Int(Double(box.ymax) + dy + grow * high), height - 1), 1))
    }

    /// The photograph four times as large, with a smooth outline.
    private static func enlarge(_ photograph: [UInt8]) -> [SIMD2<Float>] {
        let inside = silhouette(photograph)
        let shade = zip(photograph, inside).map { (0.12 + 0.88 * Float($0) / 255) * $1 }
        let cover = smooth(inside)
        let bright = smooth(shade)
        return zip(cover, bright).map { cover, bright in
            let edge = min(max((cover - 0.35) / 0.3, 0), 1)
            // Brightness is averaged over the garment alone, so that its edge does not darken.
            return SIMD2(edge * edge * (3 - 2 * edge), cover > 0.05 ? min(bright / cover, 1) : 0)
        }
    }

    /// 1 for the garment and for what it encloses, 0 for the background around it.
    private static func silhouette(_ photograph: [UInt8]) -> [Float] {
        let side = PhotographArchive.side
        let threshold: UInt8 = 16
        var inside = [Float](repeating: 1, count: side * side)
        var open: [Int] = []
        for place in 0..<side {
            open += [place, (side - 1) * side + place, place * side, place * side + side - 1]
        }
        while let place = open.popLast() {
            guard inside[place] == 1, photograph[place] < threshold else { continue }
            inside[place] = 0
            let (row, column) = (place / side, place % side)
            if row > 0 { open.append(place - side) }
            if row < side - 1 { open.append(place + side) }
            if column > 0 { open.append(place - 1) }
            if column < side - 1 { open.append(place + 1) }
        }
        return inside
    }

    /// Enlarges by cubic B-spline interpolation, which smooths a little; outside is 0.
    private static func smooth(_ values: [Float]) -> [Float] {
        let small = PhotographArchive.side
        let taps = (0..<side).map { place -> (first: Int, weights: [Float]) in
            let position = (Float(place) + 0.5) / Float(side) * Float(small) - 0.5
            let low = position.rounded(.down)
            return (Int(low) - 1, spline(position - low))
        }
        func sum(_ taps: (first: Int, weights: [Float]), _ value: (Int) -> Float) -> Float {
            var sum: Float = 0
            for (step, weight) in taps.weights.enumerated() {
                let place = taps.first + step
                if place >= 0, place < small { sum += weight * value(place) }
            }
            return sum
        }
        var wide = [Float](repeating: 0, count: small * side)
        for row in 0..<small {
            for column in 0..<side {
                wide[row * side + column] = sum(taps[column]) { values[row * small + $0] }
            }
        }
        var result = [Float](repeating: 0, count: side * side)
        for row in 0..<side {
            for column in 0..<side {
                result[row * side + column] = sum(taps[row]) { wide[$0 * side + column] }
            }
        }
        return result
    }

    private static func spline(_ t: Float) -> [Float] {
        let rest = 1 - t
        return [
            rest * rest * rest / 6, (3 * t * t * t - 6 * t * t + 4) / 6,
            (3 * rest * rest * rest - 6 * rest * rest + 4) / 6, t * t * t / 6,
        ]
    }
}

/// A textured surface larger than the frame, over which the camera moves.
private struct Backdrop {
    private let width: Int
    private let height: Int
    private let margin = 24
    private let pixels: [Float]
    private let x: Swing
    private let y: Swing

    init(width: Int, height: Int, _ random: inout CounterRandom) {
        self.width = width
        self.height = height
        x = Swing(centre: 24, reach: 23, &random)
        y = Swing(centre: 24, reach: 23, &random)
        let (wide, high) = (width + 2 * margin, height + 2 * margin)
        let coarse = Self.noise(wide, high, cell: 70, &random)
        let middle = Self.noise(wide, high, cell: 23, &random)
        let fine = Self.noise(wide, high, cell: 6, &random)
        let dark = Colour.cloth(&random)
        let bright = Colour.cloth(&random)
        let angle = Float(random.uniform()) * .pi
        let (stripeX, stripeY) = (cos(angle), sin(angle))
        let period = 2 * Float.pi / (12 + 30 * Float(random.uniform()))
        let stripes = 0.25 * Float(random.uniform())
        let across = (0..<wide).map { stripeX * Float($0) * period }
        let down = (0..<high).map { stripeY * Float($0) * period }
        let waveX = across.map { SIMD2(sin($0), cos($0)) }
        let waveY = down.map { SIMD2(sin($0), cos($0)) }
        let pixels = [Float](unsafeUninitializedCapacity: wide * high * 3) { pixels, count in
            for row in 0..<high {
                for column in 0..<wide {
                    let place = row * wide + column
                    // sin(a + b), so that no sine is taken for every pixel.
                    let wave = waveX[column].x * waveY[row].y + waveX[column].y * waveY[row].x
                    let noise = 0.7 * coarse[place] + 0.45 * middle[place] + 0.3 * fine[place]
                    let t = min(max(0.5 + noise + stripes * wave, 0), 1)
                    let level = 30 + 170 * t
                    pixels[place * 3] = level * mix(dark.red, bright.red, t)
                    pixels[place * 3 + 1] = level * mix(dark.green, bright.green, t)
                    pixels[place * 3 + 2] = level * mix(dark.blue, bright.blue, t)
                }
            }
            count = wide * high * 3
        }
        self.pixels = pixels
    }

    /// The frame-sized part in view at a time in 0..<1.
    func view(at time: Double) -> [Float] {
        let (left, top) = (Int(x.at(time)), Int(y.at(time)))
        let wide = width + 2 * margin
        var canvas: [Float] = []
        canvas.reserveCapacity(width * height * 3)
        for row in 0..<height {
            let start = ((top + row) * wide + left) * 3
            canvas += pixels[start..<start + width * 3]
        }
        return canvas
    }

    /// Smooth noise in -0.5...0.5 with features of about `cell` pixels.
    private static func noise(
        _ width: Int, _ height: Int, cell: Int, _ random: inout CounterRandom
    ) -> [Float] {
        let (columns, rows) = (width / cell + 2, height / cell + 2)
        let grid = (0..<columns * rows).map { _ in Float(random.uniform()) - 0.5 }
        let across = (0..<width).map { place in
            let t = Float(place % cell) / Float(cell)
            return (place / cell, t * t * (3 - 2 * t))
        }
        var values = [Float](repeating: 0, count: width * height)
        var line = [Float](repeating: 0, count: columns)
        for row in 0..<height {
            let t = Float(row % cell) / Float(cell)
            let down = t * t * (3 - 2 * t)
            let start = row / cell * columns
            for column in 0..<columns {
                line[column] = mix(grid[start + column], grid[start + columns + column], down)
            }
            values.withUnsafeMutableBufferPointer { values in
                for (column, (cellColumn, weight)) in across.enumerated() {
                    values[row * width + column] = mix(
                        line[cellColumn], line[cellColumn + 1], weight)
                }
            }
        }
        return values
    }
}

@inline(__always)
private func mix(_ from: Float, _ to: Float, _ share: Float) -> Float {
    from + (to - from) * share
}
