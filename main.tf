# In the order of the data's way: generator -> bucket -> queues -> submitter -> Datadog,
# then what watches them.

data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "lambda_assume" {
  statement {
    sid     = "LambdaAssumesTheRole"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

# ---------------------------------------------------------------------------------------
# Generator: writes a sample file on schedule
# ---------------------------------------------------------------------------------------

locals {
  mock_datasource_zip    = "${path.module}/ddg_mock_datasource.zip"
  mock_datasource_name   = "${var.name}-mock-datasource"
  mock_datasource_prefix = "${var.stats_prefix}mock-datasource/"
  mock_datasource_count  = var.mock_datasource_enabled ? 1 : 0
}

resource "aws_cloudwatch_log_group" "mock_datasource" {
  count = local.mock_datasource_count

  name              = "/aws/lambda/${local.mock_datasource_name}"
  retention_in_days = var.log_retention_days
}

data "aws_iam_policy_document" "mock_datasource" {
  count = local.mock_datasource_count

  statement {
    sid       = "WriteSampleFiles"
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.stats.arn}/${local.mock_datasource_prefix}*"] # * is the file's own name
  }

  statement {
    sid       = "WriteOwnLog" # not CreateLogGroup: a late line would bring the group back after destroy
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.mock_datasource[0].arn}:*"] # Lambda picks the streams' names
  }
}

resource "aws_iam_role" "mock_datasource" {
  count = local.mock_datasource_count

  name               = "${local.mock_datasource_name}-${var.aws_region}" # IAM is one for all regions
  assume_role_policy = data.aws_iam_policy_document.lambda_assume.json
}

resource "aws_iam_role_policy" "mock_datasource" {
  count = local.mock_datasource_count

  name   = local.mock_datasource_name
  role   = aws_iam_role.mock_datasource[0].name
  policy = data.aws_iam_policy_document.mock_datasource[0].json
}

resource "aws_lambda_function" "mock_datasource" {
  count = local.mock_datasource_count

  function_name    = local.mock_datasource_name
  description      = "Writes a sample stats file to s3://${local.bucket_name}/${local.mock_datasource_prefix}."
  role             = aws_iam_role.mock_datasource[0].arn
  runtime          = "python3.13"
  architectures    = ["arm64"]
  handler          = "ddg_mock_datasource.lambda_handler"
  filename         = local.mock_datasource_zip
  source_code_hash = fileexists(local.mock_datasource_zip) ? filebase64sha256(local.mock_datasource_zip) : null
  memory_size      = 256
  timeout          = 30

  environment {
    variables = {
      STATS_BUCKET = aws_s3_bucket.stats.bucket
      STATS_PREFIX = var.stats_prefix
    }
  }

  logging_config {
    log_format            = "JSON"
    application_log_level = "INFO"
    system_log_level      = "INFO"
    log_group             = aws_cloudwatch_log_group.mock_datasource[0].name
  }

  lifecycle {
    precondition {
      condition     = fileexists(local.mock_datasource_zip)
      error_message = "ddg_mock_datasource.zip is missing: run ./zipper.sh, then apply again."
    }
  }

  depends_on = [aws_iam_role_policy.mock_datasource] # the first call must be allowed already
}

resource "aws_lambda_function_event_invoke_config" "mock_datasource" {
  count = local.mock_datasource_count

  function_name          = aws_lambda_function.mock_datasource[0].function_name
  maximum_retry_attempts = 0 # a retry would write a second file
}

resource "aws_cloudwatch_event_rule" "mock_schedule" {
  count = local.mock_datasource_count

  name                = local.mock_datasource_name
  description         = "Runs ${local.mock_datasource_name}."
  schedule_expression = var.mock_schedule
}

resource "aws_lambda_permission" "mock_schedule" {
  count = local.mock_datasource_count

  statement_id  = "${local.mock_datasource_name}-schedule"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.mock_datasource[0].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.mock_schedule[0].arn
}

resource "aws_cloudwatch_event_target" "mock_schedule" {
  count = local.mock_datasource_count

  rule      = aws_cloudwatch_event_rule.mock_schedule[0].name
  target_id = local.mock_datasource_name
  arn       = aws_lambda_function.mock_datasource[0].arn

  depends_on = [aws_lambda_permission.mock_schedule, aws_lambda_function_event_invoke_config.mock_datasource]
}

# ---------------------------------------------------------------------------------------
# Bucket: stats files on their way
# ---------------------------------------------------------------------------------------

locals {
  # Bucket names are one for all accounts. 63 characters at most: 24 + 1 + 12 + 1 + 15 are 53.
  bucket_name = "${var.name}-${data.aws_caller_identity.current.account_id}-${var.aws_region}"
}

resource "aws_s3_bucket" "stats" {
  bucket        = local.bucket_name
  force_destroy = var.force_destroy
}

resource "aws_s3_bucket_public_access_block" "stats" {
  bucket = aws_s3_bucket.stats.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "stats" {
  bucket = aws_s3_bucket.stats.id

  rule {
    object_ownership = "BucketOwnerEnforced" # a file that another account wrote is ours to read
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "stats" {
  bucket = aws_s3_bucket.stats.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "stats" {
  bucket = aws_s3_bucket.stats.id

  rule {
    id     = "files"
    status = "Enabled"

    filter {}

    expiration {
      days = var.file_retention_days
    }
  }

  rule {
    id     = "incomplete-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

data "aws_iam_policy_document" "stats_bucket" {
  statement {
    sid       = "RefusePlainHttp"
    effect    = "Deny"
    actions   = ["s3:*"] # a Deny of everything
    resources = [aws_s3_bucket.stats.arn, "${aws_s3_bucket.stats.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "stats" {
  bucket = aws_s3_bucket.stats.id
  policy = data.aws_iam_policy_document.stats_bucket.json

  depends_on = [aws_s3_bucket_public_access_block.stats] # S3 refuses the two at the same time
}

# A bucket has one notification configuration: another resource of this type would overwrite it.
resource "aws_s3_bucket_notification" "stats" {
  bucket = aws_s3_bucket.stats.id

  queue {
    id            = "${var.name}-stats"
    queue_arn     = aws_sqs_queue.stats.arn
    events        = ["s3:ObjectCreated:*"]
    filter_prefix = var.stats_prefix
  }

  depends_on = [aws_sqs_queue_policy.stats] # S3 tries the queue before it takes the configuration
}

# ---------------------------------------------------------------------------------------
# Queues: files to submit, what failed for too long, what was refused
# ---------------------------------------------------------------------------------------

locals {
  submit_timeout = 30 # seconds
  # AWS: at least 6 x the function's timeout + the window. try() leaves the sum wholly unknown to
  # `validate`: a provider without refinements of unknown values fails on one that is half known.
  visibility_timeout = try(6 * local.submit_timeout + var.batch_window)

  datadog_window = max(3600, var.max_age_seconds) # seconds that Datadog takes a point for
  # Nothing is given up while Datadog would still take it. AWS: at least 5; SQS: at most 1000.
  max_receive_count = min(1000, max(5, ceil(local.datadog_window / local.visibility_timeout)))

  four_days     = 345600  # seconds
  fourteen_days = 1209600 # seconds, the most that SQS keeps a message
}

resource "aws_sqs_queue" "stats" {
  name                       = "${var.name}-stats"
  message_retention_seconds  = local.four_days
  visibility_timeout_seconds = local.visibility_timeout
  sqs_managed_sse_enabled    = true # S3 can't send to a queue under the AWS-managed KMS key

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letter.arn
    maxReceiveCount     = local.max_receive_count
  })
}

resource "aws_sqs_queue" "dead_letter" {
  name                      = "${var.name}-dead-letter"
  message_retention_seconds = local.fourteen_days # from the first send on: moving doesn't start it anew
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue" "rejected" {
  name                      = "${var.name}-rejected"
  message_retention_seconds = local.fourteen_days
  sqs_managed_sse_enabled   = true
}

# A resource of its own, since the two queues would otherwise name each other.
resource "aws_sqs_queue_redrive_allow_policy" "dead_letter" {
  queue_url = aws_sqs_queue.dead_letter.url

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.stats.arn]
  })
}

data "aws_iam_policy_document" "queue_tls" {
  for_each = {
    stats       = aws_sqs_queue.stats.arn
    dead-letter = aws_sqs_queue.dead_letter.arn
    rejected    = aws_sqs_queue.rejected.arn
  }

  statement {
    sid       = "RefusePlainHttp"
    effect    = "Deny"
    actions   = ["sqs:*"] # a Deny of everything
    resources = [each.value]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

data "aws_iam_policy_document" "stats_queue" {
  source_policy_documents = [data.aws_iam_policy_document.queue_tls["stats"].json]

  statement {
    sid       = "BucketNotifies"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.stats.arn]

    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_s3_bucket.stats.arn]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount" # a bucket's ARN names no account: ours could be deleted and taken by another
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_sqs_queue_policy" "stats" {
  queue_url = aws_sqs_queue.stats.url
  policy    = data.aws_iam_policy_document.stats_queue.json
}

resource "aws_sqs_queue_policy" "dead_letter" {
  queue_url = aws_sqs_queue.dead_letter.url
  policy    = data.aws_iam_policy_document.queue_tls["dead-letter"].json
}

resource "aws_sqs_queue_policy" "rejected" {
  queue_url = aws_sqs_queue.rejected.url
  policy    = data.aws_iam_policy_document.queue_tls["rejected"].json
}

# ---------------------------------------------------------------------------------------
# Submitter: files to Datadog
# ---------------------------------------------------------------------------------------

locals {
  metric_submit_zip  = "${path.module}/ddg_metric_submit.zip"
  metric_submit_name = "${var.name}-metric-submit"

  # That a key is given is no secret; the key is, and stays sensitive.
  api_key_given = nonsensitive(var.ddg_api_key != null)
  app_key_given = nonsensitive(var.ddg_app_key != null)
  secret_given  = var.ddg_api_key_secret_arn != null
}

resource "aws_cloudwatch_log_group" "metric_submit" {
  name              = "/aws/lambda/${local.metric_submit_name}"
  retention_in_days = var.log_retention_days
}

data "aws_iam_policy_document" "metric_submit" {
  statement {
    sid       = "TakeNotifications"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    resources = [aws_sqs_queue.stats.arn]
  }

  statement {
    sid       = "ReadFiles"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.stats.arn}/${var.stats_prefix}*"] # * is the file's own name
  }

  statement {
    sid       = "TellMissingFromForbidden" # without it S3 answers 403 for a file that is gone
    actions   = ["s3:ListBucket"]          # no condition on s3:prefix: GetObject carries none
    resources = [aws_s3_bucket.stats.arn]
  }

  statement {
    sid       = "KeepRefusedFiles"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.rejected.arn]
  }

  statement {
    sid       = "WriteOwnLog" # not CreateLogGroup: a late line would bring the group back after destroy
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.metric_submit.arn}:*"] # Lambda picks the streams' names
  }

  dynamic "statement" {
    for_each = local.secret_given ? [var.ddg_api_key_secret_arn] : []

    content {
      sid       = "ReadApiKey"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = local.secret_given && var.ddg_api_key_kms_key_arn != null ? [var.ddg_api_key_kms_key_arn] : []

    content {
      sid       = "DecryptApiKey"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role" "metric_submit" {
  name               = "${local.metric_submit_name}-${var.aws_region}" # IAM is one for all regions
  assume_role_policy = data.aws_iam_policy_document.lambda_assume.json
}

resource "aws_iam_role_policy" "metric_submit" {
  name   = local.metric_submit_name
  role   = aws_iam_role.metric_submit.name
  policy = data.aws_iam_policy_document.metric_submit.json
}

resource "aws_lambda_function" "metric_submit" {
  function_name    = local.metric_submit_name
  description      = "Posts the metrics of new files in s3://${local.bucket_name}/${var.stats_prefix} to Datadog."
  role             = aws_iam_role.metric_submit.arn
  runtime          = "python3.13"
  architectures    = ["arm64"]
  handler          = "ddg_metric_submit.lambda_handler"
  filename         = local.metric_submit_zip
  source_code_hash = fileexists(local.metric_submit_zip) ? filebase64sha256(local.metric_submit_zip) : null
  memory_size      = var.memory_size
  timeout          = local.submit_timeout

  environment {
    variables = merge(
      {
        DATADOG_HOST       = "https://api.${var.ddg_site}"
        STATS_PREFIX       = var.stats_prefix
        REJECTED_QUEUE_URL = aws_sqs_queue.rejected.url
        CONSTANT_TAGS      = join(",", var.constant_tags)
        MAX_AGE_SECONDS    = tostring(var.max_age_seconds)
      },
      local.api_key_given ? { DATADOG_API_KEY = var.ddg_api_key } : {},
      local.app_key_given ? { DATADOG_APP_KEY = var.ddg_app_key } : {},
      local.secret_given ? { DATADOG_API_KEY_SECRET_ARN = var.ddg_api_key_secret_arn } : {},
    )
  }

  logging_config {
    log_format            = "JSON"
    application_log_level = "INFO" # above it Lambda would drop the summaries that the metrics are made of
    system_log_level      = "INFO"
    log_group             = aws_cloudwatch_log_group.metric_submit.name
  }

  # Here and not in the variables' validations: those would ask for the keys on destroy too.
  lifecycle {
    precondition {
      condition     = local.secret_given ? !local.api_key_given && !local.app_key_given : local.api_key_given
      error_message = "Give the keys (apply -var 'ddg_api_key=...' -var 'ddg_app_key=...') or ddg_api_key_secret_arn, and not both."
    }

    precondition {
      condition     = fileexists(local.metric_submit_zip)
      error_message = "ddg_metric_submit.zip is missing: run ./zipper.sh, then apply again."
    }
  }
}

resource "aws_lambda_event_source_mapping" "metric_submit" {
  event_source_arn                   = aws_sqs_queue.stats.arn
  function_name                      = aws_lambda_function.metric_submit.arn
  batch_size                         = var.batch_size
  maximum_batching_window_in_seconds = var.batch_window
  function_response_types            = ["ReportBatchItemFailures"]

  scaling_config {
    maximum_concurrency = var.maximum_concurrency # reserved concurrency would take from the account's 10
  }

  depends_on = [aws_iam_role_policy.metric_submit] # Lambda tries the queue before it takes the mapping
}

# ---------------------------------------------------------------------------------------
# Alarms
# ---------------------------------------------------------------------------------------

locals {
  functions = merge(
    { metric-submit = aws_lambda_function.metric_submit.function_name },
    { for function in aws_lambda_function.mock_datasource : "mock-datasource" => function.function_name },
  )

  # Dead letters have waited in the main queue before, 4 days at most, and their age in the metric
  # starts anew when they are moved: past 10 days the oldest may have none of its 14 left.
  ten_days = 864000 # seconds

  # SQS leaves a message out of the queue's age once it was received for the third time: the
  # threshold stays below two visibility timeouts, or an outage would never reach it.
  waiting_seconds = 300 + var.batch_window

  alarms = merge(
    {
      files-rejected = {
        metric      = "AWS/SQS ApproximateNumberOfMessagesVisible"
        dimensions  = { QueueName = aws_sqs_queue.rejected.name }
        statistic   = "Maximum"
        above       = 0
        period      = 60
        periods     = 1
        description = "Files were refused and are kept in the queue ${aws_sqs_queue.rejected.name}. First read the reason of each (ddg_ops.py rejected list): it names the place in the file and what to do. Then correct the job."
      }

      dead-letters = {
        metric      = "AWS/SQS ApproximateNumberOfMessagesVisible"
        dimensions  = { QueueName = aws_sqs_queue.dead_letter.name }
        statistic   = "Maximum"
        above       = 0
        period      = 60
        periods     = 1
        description = "Files could not be submitted within ${local.max_receive_count} tries and wait in the queue ${aws_sqs_queue.dead_letter.name}. First read the retries' reasons in the log group ${aws_cloudwatch_log_group.metric_submit.name}; once the cause is gone move the messages back to ${aws_sqs_queue.stats.name} (ddg_ops.py dead replay)."
      }

      rejected-expiring = {
        metric      = "AWS/SQS ApproximateAgeOfOldestMessage"
        dimensions  = { QueueName = aws_sqs_queue.rejected.name }
        statistic   = "Maximum"
        above       = local.ten_days
        period      = 300
        periods     = 1
        description = "The oldest refused file is over 10 days in the queue ${aws_sqs_queue.rejected.name} and is deleted after 14. First save the messages that you still need, then clear the queue."
      }

      dead-letters-expiring = {
        metric      = "AWS/SQS ApproximateAgeOfOldestMessage"
        dimensions  = { QueueName = aws_sqs_queue.dead_letter.name }
        statistic   = "Maximum"
        above       = local.ten_days
        period      = 300
        periods     = 1
        description = "The oldest dead letter is over 10 days in the queue ${aws_sqs_queue.dead_letter.name} and is deleted 14 days after it was first sent. First save the messages, or move them back to ${aws_sqs_queue.stats.name}."
      }

      files-waiting = {
        metric      = "AWS/SQS ApproximateAgeOfOldestMessage"
        dimensions  = { QueueName = aws_sqs_queue.stats.name }
        statistic   = "Maximum"
        above       = local.waiting_seconds
        period      = 60
        periods     = 3
        description = "A file waits for over ${local.waiting_seconds} seconds in the queue ${aws_sqs_queue.stats.name}; Datadog drops it when it is an hour old. First see whether files-retried or an errors alarm is on as well: then the cause is there. If not, more files arrive than are submitted: raise maximum_concurrency, then batch_size (docs/scaling.md)."
      }

      files-retried = {
        metric      = "DatadogStats Retried"
        dimensions  = { FunctionName = aws_lambda_function.metric_submit.function_name }
        statistic   = "Sum"
        above       = 0
        period      = 300
        periods     = 3
        description = "Files have been retried for 15 minutes: a wrong key (401, 403), a wrong site, or an outage of Datadog. Nothing is lost yet. First read the reason of the retries in the log group ${aws_cloudwatch_log_group.metric_submit.name}; for 401 or 403 check the key against ddg_site, otherwise see status.datadoghq.com."
      }
    },
    {
      for function, name in local.functions : "${function}-errors" => {
        metric      = "AWS/Lambda Errors"
        dimensions  = { FunctionName = name }
        statistic   = "Sum"
        above       = 0
        period      = 300
        periods     = 1
        description = "The function ${name} failed or ran out of time. First read the last error in the log group /aws/lambda/${name}: a setting that is missing or malformed is named there."
      }
    },
    {
      for function, name in local.functions : "${function}-throttles" => {
        metric      = "AWS/Lambda Throttles"
        dimensions  = { FunctionName = name }
        statistic   = "Sum"
        above       = 0
        period      = 300
        periods     = 1
        description = "The function ${name} was refused a start because the account's concurrency is used up. First look at the account's limit (Service Quotas, Lambda, Concurrent executions: 10 in a new account) and ask for more, or lower maximum_concurrency. Files wait meanwhile."
      }
    },
  )
}

# Not encrypted under alias/aws/sns: CloudWatch may not use that key, and the alarms would go nowhere.
resource "aws_sns_topic" "alarms" {
  name = "${var.name}-alarms"
}

resource "aws_sns_topic_subscription" "alarm_email" {
  count = var.alarm_email == null ? 0 : 1

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

resource "aws_cloudwatch_metric_alarm" "pipeline" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = split(" ", each.value.metric)[0]
  metric_name         = split(" ", each.value.metric)[1]
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  period              = each.value.period
  evaluation_periods  = each.value.periods
  treat_missing_data  = "notBreaching" # idle queues and functions report nothing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

locals {
  # A rate's own length; for a cron expression, which mock_schedule wants at least daily, a day.
  mock_rate    = try(regex("^rate\\((\\d+) (minute|hour|day)s?\\)$", var.mock_schedule), ["1", "day"])
  mock_seconds = tonumber(local.mock_rate[0]) * { minute = 60, hour = 3600, day = 86400 }[local.mock_rate[1]]
}

resource "aws_cloudwatch_metric_alarm" "nothing_submitted" {
  count = local.mock_datasource_count

  alarm_name          = "${var.name}-nothing-submitted"
  alarm_description   = "The generator is on (${var.mock_schedule}), yet nothing arrived in Datadog for three periods; right after the first apply that is normal for some minutes. First see whether ${aws_lambda_function.mock_datasource[0].function_name} runs (its log group), then whether files wait in ${aws_sqs_queue.stats.name} or were refused into ${aws_sqs_queue.rejected.name}."
  namespace           = "DatadogStats"
  metric_name         = "Submitted"
  dimensions          = { FunctionName = aws_lambda_function.metric_submit.function_name }
  statistic           = "Sum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = max(300, min(86400, local.mock_seconds)) # CloudWatch: a day at most for three periods
  evaluation_periods  = 3
  treat_missing_data  = "breaching" # no summary at all is the very thing to tell
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

locals {
  alarms_made = concat(values(aws_cloudwatch_metric_alarm.pipeline), aws_cloudwatch_metric_alarm.nothing_submitted)
}

data "aws_iam_policy_document" "alarm_topic" {
  statement {
    sid       = "AlarmsPublish"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = local.alarms_made[*].arn
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }

  statement {
    sid       = "RefusePlainHttp"
    effect    = "Deny"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.alarm_topic.json
}

# ---------------------------------------------------------------------------------------
# Dashboard: the pipeline's health on a page
# ---------------------------------------------------------------------------------------

locals {
  submit_metrics = { for metric in ["Submitted", "Refused", "Retried", "Points", "Requests", "WireBytes", "FetchMilliseconds", "PostMilliseconds"] :
    metric => ["DatadogStats", metric, "FunctionName", aws_lambda_function.metric_submit.function_name]
  }
  queue_names = [aws_sqs_queue.stats.name, aws_sqs_queue.dead_letter.name, aws_sqs_queue.rejected.name]

  # Title, statistic, metrics; two a row.
  graphs = [
    ["Files by outcome", "Sum", [local.submit_metrics.Submitted, local.submit_metrics.Refused, local.submit_metrics.Retried]],
    ["Points and requests to Datadog", "Sum", [local.submit_metrics.Points, local.submit_metrics.Requests]],
    ["Messages waiting", "Maximum", [for name in local.queue_names : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", name]]],
    ["Oldest message, seconds", "Maximum", [for name in local.queue_names : ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", name]]],
    ["Time of a batch, milliseconds", "Average", [local.submit_metrics.FetchMilliseconds, local.submit_metrics.PostMilliseconds, ["AWS/Lambda", "Duration", "FunctionName", aws_lambda_function.metric_submit.function_name]]],
    ["Bytes sent to Datadog", "Sum", [local.submit_metrics.WireBytes]],
    ["Errors and throttles", "Sum", [for pair in setproduct(["Errors", "Throttles"], values(local.functions)) : ["AWS/Lambda", pair[0], "FunctionName", pair[1]]]],
    ["Submitters at the same time", "Maximum", [["AWS/Lambda", "ConcurrentExecutions", "FunctionName", aws_lambda_function.metric_submit.function_name]]],
  ]
}

resource "aws_cloudwatch_dashboard" "pipeline" {
  dashboard_name = "${var.name}-${var.aws_region}" # dashboards are one for all regions

  dashboard_body = jsonencode({
    widgets = concat(
      [{
        type       = "alarm"
        x          = 0
        y          = 0
        width      = 24
        height     = 3
        properties = { title = "Alarms", alarms = local.alarms_made[*].arn }
      }],
      [for index, graph in local.graphs : {
        type   = "metric"
        x      = 12 * (index % 2)
        y      = 3 + 6 * floor(index / 2)
        width  = 12
        height = 6
        properties = {
          title   = graph[0]
          stat    = graph[1]
          metrics = graph[2]
          region  = var.aws_region
          view    = "timeSeries"
          period  = 60
        }
      }],
    )
  })
}
