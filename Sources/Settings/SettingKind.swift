import Basics

/// What values a setting takes.
public enum SettingKind: Sendable, Equatable {
    /// `true` or `false`.
    case flag
    /// A whole number in a range.
    case integer(ClosedRange<Int>)
    /// A finite number in a range.
    case number(ClosedRange<Double>)
    /// One of these words.
    case choice([String])
    /// Different ones of these words, at least one.
    case list([String])
    /// Whole numbers of a range, each larger than the one before; may be empty.
    case rising(ClosedRange<Int>)
    /// Any string that is not empty.
    case text
    /// The same or null.
    case optionalText
    /// A number from 0 on, `soft` or `none`.
    case margin
    /// Losses, each `NAME`, `NAME:WEIGHT` or an object of its settings; may be empty.
    case losses

    /// What is expected, for messages: `a whole number from 1 to 256`.
    public var expectation: String {
        switch self {
        case .flag: return "true or false"
        case .integer(let range):
            let upper = range.upperBound == Int.max ? "" : " to \(range.upperBound)"
            return "a whole number from \(range.lowerBound)\(upper)"
        case .number(let range):
            if range.lowerBound == .leastNormalMagnitude {
                return "a number above 0, at most \(JSONValue.number(range.upperBound).settingText)"
            }
            let bounds = [range.lowerBound, range.upperBound].map {
                JSONValue.number($0).settingText
            }
            return "a number from \(bounds[0]) to \(bounds[1])"
        case .choice(let words): return words.count == 1 ? words[0] : "one of " + words.spoken("or")
        case .list(let words): return "a list of different ones of " + words.spoken("and")
        case .rising(let range):
            return "a list of rising whole numbers from \(range.lowerBound) to \(range.upperBound)"
        case .text: return "a string"
        case .optionalText: return "a string or null"
        case .margin: return "a number from 0 on, soft or none"
        case .losses:
            return
                "a list of losses, each NAME, NAME:WEIGHT with a weight above 0, or an object with "
                + "its name and settings"
        }
    }

    /// The value in the one form that the settings' digest sees, or nil when it does not fit.
    func normalised(_ value: JSONValue) -> JSONValue? {
        switch (self, value) {
        case (.flag, .bool): return value
        case (.integer(let range), .integer(let number)):
            return range.contains(number) ? value : nil
        case (.integer, .number(let number)):
            return Int(exactly: number).flatMap { normalised(.integer($0)) }
        case (.number(let range), .number(let number)):
            return range.contains(number) ? .number(number + 0) : nil
        case (.number, .integer(let number)): return normalised(.number(Double(number)))
        case (.choice(let words), .string(let word)): return words.contains(word) ? value : nil
        case (.list(let words), .array(let values)):
            let given = values.compactMap { element -> String? in
                if case .string(let word) = element, words.contains(word) { return word }
                return nil
            }
            let fits = !given.isEmpty && given.count == values.count
            return fits && Set(given).count == given.count ? value : nil
        case (.rising, .integer): return normalised(.array([value]))
        case (.rising(let range), .array(let values)):
            let given = values.compactMap { element -> Int? in
                if case .integer(let number) = element, range.contains(number) { return number }
                return nil
            }
            let isRising = zip(given, given.dropFirst()).allSatisfy { $0 < $1 }
            return given.count == values.count && isRising ? value : nil
        case (.text, .string(let text)), (.optionalText, .string(let text)):
            return text.isEmpty ? nil : value
        case (.optionalText, .null): return value
        case (.margin, .number(let number)): return number >= 0 ? .number(number + 0) : nil
        case (.margin, .integer(let number)): return normalised(.number(Double(number)))
        case (.margin, .string(let word)): return word == "soft" || word == "none" ? value : nil
        case (.losses, .string(let text)):
            return normalised(.array(text.split(separator: ",").map { .string(String($0)) }))
        case (.losses, .array(let values)):
            let losses = values.compactMap(Self.normalisedLoss)
            return losses.count == values.count ? .array(losses) : nil
        default: return nil
        }
    }

    /// A loss as an object with its name and the settings that differ from its own defaults.
    ///
    /// A setting that a later version adds is at its default in all that is written now, and so
    /// changes no digest.
    private static func normalisedLoss(_ value: JSONValue) -> JSONValue? {
        var given: [String: JSONValue]
        switch value {
        case .object(let members): given = members
        case .string(let text):
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            given = ["name": .string(String(parts[0]))]
            guard parts.count < 3 else { return nil }
            if parts.count == 2 {
                guard let weight = Double(parts[1]) else { return nil }
                given["weight"] = .number(weight)
            }
        default: return nil
        }
        guard case .string(let word) = given["name"], let name = LossName(rawValue: word) else {
            return nil
        }
        // A loss that is added adds no others.
        if given["plus"] == .array([]) { given["plus"] = nil }
        let defaults = SettingsCatalogue.defaults(backbone: .resnet50, loss: name)
        var kept: [String: JSONValue] = [:]
        for (key, value) in given {
            guard key != "plus", let kind = SettingsCatalogue.entry("loss." + key)?.kind,
                let normal = kind.normalised(value)
            else { return nil }
            if key == "name" || normal != defaults["loss." + key] { kept[key] = normal }
        }
        return .object(kept)
    }

    /// Reads the text after `=` of a `--set`.
    func value(fromText text: String) -> JSONValue {
        if case .text = self { return .string(text) }
        if case .optionalText = self { return text == "null" ? .null : .string(text) }
        if case .choice = self { return .string(text) }
        var parser = JSONParser(text.utf8, name: "--set")
        if let value = try? parser.parse() { return value }
        if case .losses = self { return .string(text) }
        if case .list = self {
            return .array(text.split(separator: ",").map { .string(String($0)) })
        }
        if case .rising = self {
            let numbers = text.split(separator: ",").compactMap { Int($0) }
            if numbers.map(String.init).joined(separator: ",") == text {
                return .array(numbers.map { .integer($0) })
            }
        }
        return Double(text).map { $0.isFinite ? .number($0) : .string(text) } ?? .string(text)
    }
}

/// How a setting may change when a run is resumed.
public enum SettingChange: String, Sendable, Codable {
    /// Not at all: it decides what the run computes, and is part of the settings' digest.
    case never
    /// Freely: it decides when, where or how often, not what.
    case free
    /// To larger values.
    case upward
    /// From bitwise to statistical.
    case relaxing
}

extension JSONValue {
    /// As a person would write it after `=`: strings without quotes, whole numbers without `.0`.
    public var settingText: String {
        switch self {
        case .string(let text): return text
        case .number(let value):
            if let whole = Int(exactly: value), abs(whole) < 1_000_000_000 { return String(whole) }
            return value.description
        case .array(let values) where !values.isEmpty:
            return values.map(\.settingText).joined(separator: ",")
        default: return canonicalText
        }
    }
}

extension [String] {
    /// `a, b or c`.
    func spoken(_ word: String) -> String {
        guard let last, count > 1 else { return first ?? "" }
        return dropLast().joined(separator: ", ") + " \(word) " + last
    }
}
