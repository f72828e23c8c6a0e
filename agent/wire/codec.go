package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"towpath/agent/agentpb"
)

// Data frames of Down and Up have the same bytes: field 2, its length, the data. The length is always written in two bytes, so that data can be
// read into a buffer before its length is known and be sent from there.
const (
	dataField = 2
	dataTag   = dataField<<3 | byte(protowire.BytesType)
	dataHead  = 3

	idleBuffer = 2 << 10
	flowBuffer = 16 << 10
)

// Codec writes and reads the frames of the tunnel as protocol buffers, and hands data on without copying it: sent data stays in the pooled buffer
// it was read into, received data stays in the buffer the transport received it in. It is compatible with gRPC's own codec on the other side.
// Use NewCodec; safe for concurrent use.
type Codec struct {
	pool mem.BufferPool
}

// NewCodec makes a codec with a buffer pool of its own.
func NewCodec() *Codec {
	return &Codec{pool: mem.NewTieredBufferPool(idleBuffer, flowBuffer)}
}

// Name is that of gRPC's own codec: the bytes are the same.
func (*Codec) Name() string { return "proto" }

// Frame receives one message of a Relay stream, and sends it on as it came.
type Frame struct {
	// Message is where anything but data is decoded: an *agentpb.Up or *agentpb.Down given by the receiver. It is empty after a data frame.
	Message proto.Message
	// Data is set after a data frame; whoever received the frame frees it, unless it is sent on: then it is the transport's.
	Data mem.Buffer
}

// data is a data frame to send; its buffer starts with room for the frame's head, already filled in.
type data struct {
	buffer mem.Buffer
}

// Marshal implements encoding.CodecV2.
func (c *Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *data:
		return mem.BufferSlice{v.buffer}, nil
	case *Frame:
		if v.Data == nil {
			return c.Marshal(v.Message)
		}
		head := binary.AppendUvarint([]byte{dataTag}, uint64(v.Data.Len()))
		return mem.BufferSlice{mem.SliceBuffer(head), v.Data}, nil
	case proto.Message:
		text, err := proto.Marshal(v)
		if err != nil {
			return nil, err
		}
		return mem.BufferSlice{mem.SliceBuffer(text)}, nil
	}
	return nil, fmt.Errorf("the tunnel's codec cannot send a %T", v)
}

// Unmarshal implements encoding.CodecV2.
func (c *Codec) Unmarshal(received mem.BufferSlice, v any) error {
	whole := received.MaterializeToBuffer(c.pool) // no copy when it came in one piece, as data frames do
	defer whole.Free()
	switch v := v.(type) {
	case *Frame:
		v.Data = nil
		if start, ok := dataStart(whole.ReadOnlyData()); ok {
			proto.Reset(v.Message)
			v.Data = whole.Slice(start, whole.Len())
			return nil
		}
		if err := proto.Unmarshal(whole.ReadOnlyData(), v.Message); err != nil {
			return err
		}
		v.Data = strayData(v.Message)
		return nil
	case proto.Message:
		return proto.Unmarshal(whole.ReadOnlyData(), v)
	}
	return fmt.Errorf("the tunnel's codec cannot receive into a %T", v)
}

// dataStart finds the data in a frame that holds nothing else.
func dataStart(frame []byte) (int, bool) {
	if len(frame) < 2 || frame[0] != dataTag {
		return 0, false
	}
	size, n := binary.Uvarint(frame[1:])
	if n <= 0 || size != uint64(len(frame)-1-n) {
		return 0, false
	}
	return 1 + n, true
}

// strayData is the data of a frame that was written in an unusual way, such as with an unknown field beside it.
func strayData(message proto.Message) mem.Buffer {
	switch message := message.(type) {
	case *agentpb.Down:
		if frame, ok := message.Frame.(*agentpb.Down_Data); ok {
			message.Frame = nil
			return mem.SliceBuffer(frame.Data)
		}
	case *agentpb.Up:
		if frame, ok := message.Frame.(*agentpb.Up_Data); ok {
			message.Frame = nil
			return mem.SliceBuffer(frame.Data)
		}
	}
	return nil
}

// ReadError is a failure of the reader that Copy reads from; other errors of Copy come from sending.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return e.Err.Error() }
func (e *ReadError) Unwrap() error { return e.Err }

// Copy sends what r yields as data frames until io.EOF, and says how many bytes went out. Each read is sent at once. A reader that is idle holds
// 2 KB, one that flows 16 KB. It ends with a *ReadError when r fails, with send's own error when sending does.
func (c *Codec) Copy(send func(frame any) error, r io.Reader) (int64, error) {
	var total int64
	size := idleBuffer
	for empty := 0; ; {
		raw := c.pool.Get(size)
		n, readErr := r.Read((*raw)[dataHead:min(size, dataHead+MaxData)])
		if n <= 0 {
			c.pool.Put(raw)
			if empty++; readErr == nil && empty > 100 {
				readErr = io.ErrNoProgress
			}
		} else {
			empty = 0
			full := n == min(size, dataHead+MaxData)-dataHead
			*raw = (*raw)[:dataHead+n]
			(*raw)[0], (*raw)[1], (*raw)[2] = dataTag, byte(n)|0x80, byte(n>>7)
			if err := send(&data{buffer: mem.NewBuffer(raw, c.pool)}); err != nil {
				return total, err
			}
			total += int64(n)
			switch {
			case full:
				size = flowBuffer
			case n < idleBuffer/2:
				size = idleBuffer
			}
		}
		if errors.Is(readErr, io.EOF) {
			return total, nil
		}
		if readErr != nil {
			return total, &ReadError{readErr}
		}
	}
}
