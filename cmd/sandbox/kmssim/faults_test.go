package kmssim_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
)

func (s service) describe(t *testing.T) error {
	t.Helper()
	_, err := s.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &s.arn})
	return err
}

func TestFaultsOfTheNextCalls(t *testing.T) {
	s := runNew(t)
	blob, plaintext := s.seal(t, nil)
	s.Faults().Next(2, kmssim.Throttling, "GenerateDataKey", "DescribeKey")
	require.Equal(t, plaintext, s.open(t, blob, nil), "Decrypt is not hit")
	requireCode(t, s.describe(t), "ThrottlingException")
	requireCode(t, s.describe(t), "ThrottlingException")
	require.NoError(t, s.describe(t))

	s.Faults().Next(0, kmssim.Throttling)
	require.NoError(t, s.describe(t))
	require.Equal(t, 4, s.Calls("DescribeKey"))
	require.Equal(t, 1, s.Calls("Decrypt"))
	require.Zero(t, s.Calls("ReEncrypt"))
}

func TestFaultsAnswerAsAWSDoes(t *testing.T) {
	s := runNew(t)
	for fault, want := range map[kmssim.Fault]struct {
		status int
		code   string
		target any
	}{
		kmssim.Throttling:         {400, "ThrottlingException", new(smithy.APIError)},
		kmssim.Internal:           {500, "KMSInternalException", new(*types.KMSInternalException)},
		kmssim.KeyUnavailable:     {500, "KeyUnavailableException", new(*types.KeyUnavailableException)},
		kmssim.DependencyTimeout:  {500, "DependencyTimeoutException", new(*types.DependencyTimeoutException)},
		kmssim.ServiceUnavailable: {503, "ServiceUnavailableException", new(smithy.APIError)},
	} {
		s.Faults().Always(fault)
		_, err := s.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{KeyId: &s.arn, KeySpec: types.DataKeySpecAes256})
		require.ErrorAs(t, err, want.target)
		requireCode(t, err, want.code)
		var response *awshttp.ResponseError
		require.ErrorAs(t, err, &response)
		require.Equal(t, want.status, response.HTTPStatusCode())
		require.NotEmpty(t, response.ServiceRequestID())

		s.Faults().Clear()
		require.NoError(t, s.describe(t))
	}
}

func TestDisconnectGivesNoAnswer(t *testing.T) {
	s := runNew(t)
	s.Faults().Next(1, kmssim.Disconnect)
	err := s.describe(t)
	require.Error(t, err)
	require.NotErrorAs(t, err, new(smithy.APIError))
	require.NoError(t, s.describe(t))
}

func TestClientRetriesGetThrough(t *testing.T) {
	s := runNew(t)
	patient := kms.NewFromConfig(s.Config(s.url), func(o *kms.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = 5
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		})
	})
	for _, fault := range []kmssim.Fault{
		kmssim.Throttling, kmssim.Internal, kmssim.KeyUnavailable,
		kmssim.DependencyTimeout, kmssim.ServiceUnavailable, kmssim.Disconnect,
	} {
		before := s.Calls("DescribeKey")
		s.Faults().Next(2, fault)
		_, err := patient.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &s.arn})
		require.NoError(t, err)
		require.Equal(t, before+3, s.Calls("DescribeKey"))
	}
}

func TestFirstFaultWinsAndDelaysAddUp(t *testing.T) {
	s := runNew(t)
	timed := func() (time.Duration, error) {
		begun := time.Now()
		err := s.describe(t)
		return time.Since(begun), err
	}
	s.Faults().Next(1, kmssim.Internal)
	s.Faults().Next(1, kmssim.Throttling)
	s.Faults().Delay(20 * time.Millisecond)
	s.Faults().Delay(30*time.Millisecond, "DescribeKey")
	s.Faults().Delay(time.Hour, "Decrypt")

	for _, code := range []string{"KMSInternalException", "ThrottlingException", ""} {
		took, err := timed()
		require.GreaterOrEqual(t, took, 50*time.Millisecond)
		if code == "" {
			require.NoError(t, err)
		} else {
			requireCode(t, err, code)
		}
	}
	s.Faults().Delay(time.Hour)
	s.Faults().Clear()
	require.NoError(t, s.describe(t))
}

func TestDelayedCallEndsWithItsClient(t *testing.T) {
	s := runNew(t) // whose end waits for calls that go on
	s.Faults().Delay(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for s.Calls("DescribeKey") == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	_, err := s.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &s.arn})
	require.ErrorIs(t, err, context.Canceled)
}

func TestDelaysOnTheRealClock(t *testing.T) {
	s := runNew(t)
	s.Faults().Delay(time.Hour, "Decrypt")
	s.Faults().Delay(time.Nanosecond, "DescribeKey")
	require.NoError(t, s.describe(t))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: []byte("x")})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestClientThatStopsInTheMiddleOfARequest(t *testing.T) {
	s := runNew(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	r := s.request(t, "DescribeKey", `{"KeyId":"`+keyAlias+`"}`)
	wire, err := httputil.DumpRequestOut(r, true)
	require.NoError(t, err)
	_, err = conn.Write(wire[:len(wire)-1])
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Empty(t, answer)
	require.Zero(t, s.Calls("DescribeKey"))
}

func TestConcurrentUse(t *testing.T) {
	s := runNew(t)
	toggled := s.newKey(t)
	blob, _ := s.seal(t, purpose)
	arns := make([]string, 8)
	var group sync.WaitGroup
	for i := range arns {
		group.Go(func() {
			var err error
			arns[i], err = s.KMS.CreateKey("alias/shared")
			if err != nil {
				t.Error(err)
			}
			for range 10 {
				made, err := s.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{KeyId: aws.String(keyAlias), KeySpec: types.DataKeySpecAes256})
				if err != nil {
					t.Error(err)
					return
				}
				for _, in := range []*kms.DecryptInput{
					{CiphertextBlob: made.CiphertextBlob, KeyId: &s.arn},
					{CiphertextBlob: blob, EncryptionContext: purpose},
				} {
					if _, err := s.Decrypt(t.Context(), in); err != nil {
						t.Error(err)
					}
				}
				_, err = s.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: toggled.KeyId})
				_, err2 := s.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: toggled.KeyId})
				_, err3 := s.ReEncrypt(t.Context(), &kms.ReEncryptInput{CiphertextBlob: made.CiphertextBlob, DestinationKeyId: toggled.KeyId})
				if err3 != nil && !strings.Contains(err3.Error(), "DisabledException") {
					t.Error(err3)
				}
				if err := errors.Join(err, err2); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for _, arn := range arns {
		require.Equal(t, arns[0], arn, "one alias, one key")
	}
	require.Equal(t, 81, s.Calls("GenerateDataKey"))
	require.Equal(t, 160, s.Calls("Decrypt"))
}
