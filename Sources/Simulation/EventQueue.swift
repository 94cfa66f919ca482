/// Events in the order of their times; equal times in the order of their coming.
struct EventQueue<Event> {
    private struct Entry {
        let time: Int64
        let number: Int
        let event: Event

        func isBefore(_ other: Entry) -> Bool {
            time != other.time ? time < other.time : number < other.number
        }
    }

    private var heap: [Entry] = []
    private var born = 0

    var isEmpty: Bool { heap.isEmpty }
    var count: Int { heap.count }

    mutating func push(_ event: Event, at time: Int64) {
        heap.append(Entry(time: time, number: born, event: event))
        born += 1
        var place = heap.count - 1
        while place > 0 {
            let parent = (place - 1) / 2
            guard heap[place].isBefore(heap[parent]) else { break }
            heap.swapAt(place, parent)
            place = parent
        }
    }

    mutating func pop() -> (time: Int64, event: Event)? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            var place = 0
            while true {
                let left = 2 * place + 1
                guard left < heap.count else { break }
                let right = left + 1
                let child =
                    right < heap.count && heap[right].isBefore(heap[left]) ? right : left
                guard heap[child].isBefore(heap[place]) else { break }
                heap.swapAt(place, child)
                place = child
            }
        }
        return (first.time, first.event)
    }
}
