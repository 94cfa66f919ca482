/// Names in the order in which they came; adding and removing take constant time.
struct Roll: Codable, Sendable {
    private var names: [String?] = []
    private var places: [String: Int] = [:]

    init() {}

    /// Reads the names.
    init(from decoder: any Decoder) throws {
        for name in try decoder.singleValueContainer().decode([String].self) { append(name) }
    }

    /// Writes the names.
    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(all)
    }

    var count: Int { places.count }
    var isEmpty: Bool { places.isEmpty }

    /// The names, oldest first.
    var all: [String] { names.compactMap { $0 } }

    func contains(_ name: String) -> Bool { places[name] != nil }

    /// Adds a name at the end; one that is there stays where it is.
    mutating func append(_ name: String) {
        guard places[name] == nil else { return }
        places[name] = names.count
        names.append(name)
    }

    mutating func remove(_ name: String) {
        guard let place = places.removeValue(forKey: name) else { return }
        names[place] = nil
        guard names.count > 32, names.count > 2 * places.count else { return }
        names = names.filter { $0 != nil }
        for (place, name) in names.enumerated() { places[name!] = place }
    }
}
