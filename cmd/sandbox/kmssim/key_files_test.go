package kmssim_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/events/secret"
)

func TestKeysSurviveARestart(t *testing.T) {
	opts := options(filepath.Join(t.TempDir(), "made", "on", "demand"))
	before := run(t, opts)
	blob, plaintext := before.seal(t, purpose)
	second, err := before.KMS.CreateKey("alias/second")
	require.NoError(t, err)
	_, err = before.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &second})
	require.NoError(t, err)

	after := run(t, opts)
	require.Equal(t, before.arn, after.arn)
	require.Equal(t, plaintext, after.open(t, blob, purpose))
	out, err := after.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("alias/second")})
	require.NoError(t, err)
	require.Equal(t, second, *out.KeyMetadata.Arn)
	require.Equal(t, types.KeyStateDisabled, out.KeyMetadata.KeyState)
}

func TestKeyFilesAreForTheirOwnerOnly(t *testing.T) {
	opts := options(filepath.Join(t.TempDir(), "keys"))
	s := run(t, opts)
	_, err := s.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &s.arn})
	require.NoError(t, err)

	info, err := os.Stat(opts.Dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	entries, err := os.ReadDir(opts.Dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing but the key is left behind")
	info, err = entries[0].Info()
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestCreateKeyIsIdempotent(t *testing.T) {
	s := runNew(t)
	again, err := s.KMS.CreateKey(keyAlias)
	require.NoError(t, err)
	require.Equal(t, s.arn, again)
	other, err := s.KMS.CreateKey("alias/other")
	require.NoError(t, err)
	require.NotEqual(t, s.arn, other)
	_, err = s.KMS.CreateKey("tokens")
	require.ErrorContains(t, err, "InvalidAliasNameException")
	_, err = s.KMS.CreateKey("")
	require.ErrorContains(t, err, "ValidationException")
}

func TestOpenRefusesBadOptions(t *testing.T) {
	for name, spoil := range map[string]func(*kmssim.Options){
		"no folder":      func(o *kmssim.Options) { o.Dir = "" },
		"no access key":  func(o *kmssim.Options) { o.AccessKeyID = "" },
		"no secret key":  func(o *kmssim.Options) { o.SecretAccessKey = secret.Text{} },
		"file as folder": func(o *kmssim.Options) { o.Dir = os.Args[0] },
	} {
		opts := options(t.TempDir())
		spoil(&opts)
		_, err := kmssim.Open(opts)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), accessKey)
	}
}

func TestOpenFillsInTheDefaults(t *testing.T) {
	s := run(t, kmssim.Options{Dir: t.TempDir(), AccessKeyID: accessKeyID, SecretAccessKey: secret.New(accessKey)})
	require.True(t, strings.HasPrefix(s.arn, "arn:aws:kms:us-east-1:111122223333:key/"), s.arn)
	blob, plaintext := s.seal(t, nil)
	require.Equal(t, plaintext, s.open(t, blob, nil))
}

func TestOpenRefusesKeysItCannotAnswerFor(t *testing.T) {
	opts := options(t.TempDir())
	s := run(t, opts)
	id := s.arn[strings.LastIndex(s.arn, "/")+1:]
	file := filepath.Join(opts.Dir, id+".json")
	good, err := os.ReadFile(file)
	require.NoError(t, err)
	alter := func(field string, value any) []byte {
		var fields map[string]any
		require.NoError(t, json.Unmarshal(good, &fields))
		require.Contains(t, fields, field)
		fields[field] = value
		data, err := json.Marshal(fields)
		require.NoError(t, err)
		return data
	}
	for name, data := range map[string][]byte{
		"cut off":        good[:len(good)/2],
		"empty":          {},
		"short material": alter("material", []byte("short")),
		"other id":       alter("id", "00000000-0000-4000-8000-000000000000"),
		"other ARN":      alter("arn", strings.Replace(s.arn, region, "us-west-2", 1)),
	} {
		require.NoError(t, os.WriteFile(file, data, 0o600))
		_, err := kmssim.Open(opts)
		require.ErrorContains(t, err, file, name)
	}
	require.NoError(t, os.WriteFile(file, good, 0o600))

	twin := "00000000-0000-4000-8000-000000000000"
	twinFile := filepath.Join(opts.Dir, twin+".json")
	require.NoError(t, os.WriteFile(twinFile, bytes.ReplaceAll(good, []byte(id), []byte(twin)), 0o600))
	_, err = kmssim.Open(opts)
	require.ErrorContains(t, err, keyAlias, "two keys with one alias")
	require.NoError(t, os.Remove(twinFile))

	elsewhere := opts
	elsewhere.Region = "us-west-2"
	_, err = kmssim.Open(elsewhere)
	require.ErrorContains(t, err, "us-west-2")

	// What a crash in the middle of a write leaves behind does no harm.
	require.NoError(t, os.WriteFile(filepath.Join(opts.Dir, ".key-1.tmp"), good[:10], 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(opts.Dir, "lost+found"), 0o700))
	_, err = kmssim.Open(opts)
	require.NoError(t, err)
}

func TestChangeThatCannotBeWrittenDoesNotHappen(t *testing.T) {
	opts := options(t.TempDir())
	s := run(t, opts)
	file := filepath.Join(opts.Dir, s.arn[strings.LastIndex(s.arn, "/")+1:]+".json")
	require.NoError(t, os.Remove(file))
	require.NoError(t, os.MkdirAll(filepath.Join(file, "in the way"), 0o700))

	_, err := s.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &s.arn})
	require.ErrorAs(t, err, new(*types.KMSInternalException))
	blob, plaintext := s.seal(t, nil)
	require.Equal(t, plaintext, s.open(t, blob, nil))
	left, err := filepath.Glob(filepath.Join(opts.Dir, ".key-*"))
	require.NoError(t, err)
	require.Empty(t, left)

	require.NoError(t, os.RemoveAll(opts.Dir))
	_, err = s.KMS.CreateKey("alias/new")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = s.Client.CreateKey(t.Context(), &kms.CreateKeyInput{})
	require.ErrorAs(t, err, new(*types.KMSInternalException))
	_, err = s.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("alias/new")})
	require.ErrorAs(t, err, new(*types.NotFoundException))
}
